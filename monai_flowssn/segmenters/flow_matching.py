"""Conditional flow matching with classifier-free guidance."""

from __future__ import annotations

import torch
from monai.networks.utils import one_hot
from monai.utils import unsqueeze_right
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.options import check_option
from monai_flowssn.sampling import SOLVERS, solver_grid
from monai_flowssn.segmenters.base import StochasticSegmenter

__all__ = ["FlowMatching", "class_probabilities", "mask_channels", "nearest_probabilities"]


class FlowMatching(StochasticSegmenter):
    r"""Flow matching from noise to masks, guided by the image (Nguyen et al. 2025, arXiv 2507.22418).

    With y an annotation scaled to [-1, 1], :math:`\epsilon \sim N(0, I)` and :math:`y_t = (1 - t) \epsilon + t y`, training
    minimises :math:`|v(y_t, t, x) - (y - \epsilon)|^2` (Lipman et al. 2023, arXiv 2210.02747), where a share of the images is
    replaced by zeros. Sampling integrates :math:`(1 + w) v(y, t, x) - w v(y, t, 0)` (Ho & Salimans 2022, arXiv 2207.12598) from
    t = 0 to 1. The whole network runs at every step of every draw: there is no image pass to share.

    Args:
        net: ``net(y and image (B, M + C, *S), t) -> (B, M, *S)``, any module; M is 1, the foreground, for two classes, else K,
            one-hot.
        num_classes: K, the background included.
        guidance: w; 0 is no guidance and halves the cost.
        condition_dropout: probability, for each sample, that training replaces the image by zeros.
        solver: scheme of the integration; ``"dopri5"`` is adaptive and ignores ``steps``.
        steps: number of steps of the fixed-grid solvers.

    Raises:
        ValueError: for options out of range, or a network with another number of outputs.
    """

    step_network = "net"

    def __init__(
        self,
        net: nn.Module,
        *,
        num_classes: int = 2,
        guidance: float = 0.3,
        condition_dropout: float = 0.5,
        solver: str = "midpoint",
        steps: int = 100,
    ) -> None:
        super().__init__(num_classes=num_classes)
        check_option("solver", solver, SOLVERS)
        if guidance < 0 or not 0 <= condition_dropout < 1 or (guidance and not condition_dropout):
            raise ValueError(
                f"guidance is {guidance}, condition_dropout {condition_dropout}; they must be at least 0 and in [0, 1), and "
                "guidance needs a network that was trained without the image too: pass a condition_dropout above 0."
            )
        solver_grid(solver, steps)  # refuses bad values here rather than at the first validation
        self.net, self.guidance, self.condition_dropout = net, guidance, condition_dropout
        self.solver, self.steps = solver, steps
        self.channels = 1 if num_classes == 2 else num_classes

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        y = 2 * mask_channels(pick_rater(masks).squeeze(1), self.num_classes) - 1  # (B, M, *S)
        noise, t = torch.randn_like(y), torch.rand(len(y), device=y.device)
        kept = torch.rand(len(y), device=y.device) >= self.condition_dropout
        image = image * unsqueeze_right(kept, image.ndim)
        velocity = self._velocity(torch.lerp(noise, y, unsqueeze_right(t, y.ndim)), t, image)
        return {"loss": F.mse_loss(velocity, y - noise)}

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        return (torch.randn(len(image), n, self.channels, *image.shape[2:], device=image.device),)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return (image,)

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        (image,), (start,) = code, noise

        def guided(t: Tensor, y: Tensor) -> Tensor:
            if not self.guidance:
                return self._velocity(y, t.expand(len(y)), image)
            both = torch.cat([image, torch.zeros_like(image)])
            with_image, without = self._velocity(torch.cat([y, y]), t.expand(2 * len(y)), both).chunk(2)
            return torch.lerp(without, with_image, 1 + self.guidance)

        y = SOLVERS[self.solver](guided, start, solver_grid(self.solver, self.steps).to(start.device))
        return class_probabilities((y + 1) / 2)

    def _velocity(self, y: Tensor, t: Tensor, image: Tensor) -> Tensor:
        velocity = self.net(torch.cat([y, image], dim=1), t).float()
        if velocity.shape[1] != self.channels:
            raise ValueError(
                f"the network has {velocity.shape[1]} outputs; {self.num_classes} classes need {self.channels}."
            )
        return velocity


def mask_channels(mask: Tensor, num_classes: int) -> Tensor:
    """Return the mask (B, *S) as M channels of zeros and ones: the foreground alone for two classes, else K, one-hot."""
    return mask[:, None].float() if num_classes == 2 else one_hot(mask[:, None], num_classes)


def class_probabilities(p: Tensor) -> Tensor:
    """Return the probabilities (B, K, *S) that are nearest to p (B, M, *S), which has the channels of a mask."""
    if p.shape[1] > 1:
        return nearest_probabilities(p)
    p = p.clamp(0, 1)
    return torch.cat([1 - p, p], dim=1)


def nearest_probabilities(p: Tensor) -> Tensor:
    """Return the probabilities (B, K, *S) that are nearest to p (B, K, *S), by a shift common to all classes of a pixel.

    Euclidean projection onto the simplex (Duchi et al. 2008, doi 10.1145/1390156.1390191, fig. 1). Unlike clamping, it keeps the
    order of the classes where guidance has carried several beyond 1, or all below 0.
    """
    p = p - p.amax(dim=1, keepdim=True)  # changes nothing but the rounding of large numbers
    falling = p.sort(dim=1, descending=True).values
    excess = falling.cumsum(dim=1) - 1
    count = unsqueeze_right(torch.arange(1, p.shape[1] + 1, device=p.device), p[0].ndim)  # (K, 1, ...)
    kept = (falling * count > excess).sum(dim=1, keepdim=True).clamp(min=1)  # classes above 0; none for NaN
    return (p - excess.gather(1, kept - 1) / kept).clamp(min=0)
