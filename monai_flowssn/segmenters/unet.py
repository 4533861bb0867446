"""The deterministic baseline under the stochastic interface."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.annotations import rater_weights
from monai_flowssn.segmenters.base import StochasticSegmenter

__all__ = ["DeterministicUNet"]


class DeterministicUNet(StochasticSegmenter):
    """One segmentation network trained on all raters; every draw is the same map.

    The loss is the pixel mean of the cross-entropy, averaged over the annotated raters of a case: the exact expectation of
    choosing one of them at random. At the optimum the map is the mean of the raters.

    Args:
        net: ``net(image) -> (B, K, *S)`` logits, any module.
        num_classes: K, the background included.
    """

    def __init__(self, net: nn.Module, *, num_classes: int = 2) -> None:
        super().__init__(num_classes=num_classes)
        self.net = net

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        logits = self.net(image).float()
        weights = rater_weights(masks)  # (B, R)
        logits = logits[:, None].expand(-1, masks.shape[1], *logits.shape[1:])  # (B, R, K, *S)
        loss = F.cross_entropy(logits.flatten(0, 1), masks.clamp(min=0).flatten(0, 1).long(), reduction="none")
        loss = loss.flatten(1).mean(dim=1).view_as(weights)  # (B, R)
        return {"loss": (loss * weights).sum(dim=1).mean()}

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        return ()

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.net(image).float().softmax(dim=1),)

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        return code[0]
