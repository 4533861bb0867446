"""What the methods share whose draw is the softmax of logits that one pass of noise gives."""

from __future__ import annotations

import math
from abc import abstractmethod

from torch import Tensor
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.segmenters.base import StochasticSegmenter

__all__ = ["MonteCarloSegmenter"]


class MonteCarloSegmenter(StochasticSegmenter):
    r"""A distribution of logits :math:`\eta`, given which pixels are independent: p(mask | image) = E[prod softmax(eta)].

    Training minimises the Monte Carlo estimate of the negative log-likelihood over m draws (Monteiro et al. 2020,
    arXiv 2006.06015, eq. 7; De Sousa Ribeiro et al. 2025, arXiv 2507.18838, eq. 14), here in nats per pixel:

    .. math:: -\frac{1}{d} \Big[ \log \sum_m \exp \sum_i \log \mathrm{softmax}(\eta_m)_{i, y_i} - \log m \Big].

    Args:
        num_classes: K, the background included.
        train_draws: m.
    """

    def __init__(self, *, num_classes: int, train_draws: int) -> None:
        super().__init__(num_classes=num_classes)
        if train_draws < 1:
            raise ValueError(f"train_draws is {train_draws}; the likelihood needs at least one draw: pass 1 or more.")
        self.train_draws = train_draws

    @abstractmethod
    def logits(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        """Return logits (B, m, K, *S) from ``code``, tensors (B, ...), and ``noise``, tensors (B, m, ...)."""

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        return self.logits(code, tuple(part[:, None] for part in noise)).squeeze(1).softmax(dim=1)

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        logits = self.logits(self.encode(image), self.training_noise(image))
        return {"loss": -mean_log_likelihood(logits, pick_rater(masks).squeeze(1))}

    def training_noise(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the noise of one training step: tensors (B, m, ...)."""
        return self.draw_noise(image, self.train_draws)


def mean_log_likelihood(logits: Tensor, mask: Tensor) -> Tensor:
    """Return log p(mask) under the mixture of the draws, averaged over images, in nats per pixel. Arguments as below."""
    terms = log_likelihood(logits, mask)
    return (terms.logsumexp(dim=1) - math.log(terms.shape[1])).mean() / mask[0].numel()


def log_likelihood(logits: Tensor, mask: Tensor) -> Tensor:
    """Return log p(mask | draw), summed over pixels: (B, m), for logits (B, m, K, *S) and mask (B, *S)."""
    target = mask.long()[:, None].expand(*logits.shape[:2], *mask.shape[1:])
    terms = F.cross_entropy(logits.flatten(0, 1), target.flatten(0, 1), reduction="none")  # (B * m, *S)
    return -terms.flatten(1).sum(dim=1).view(logits.shape[:2])
