"""The stochastic segmentation network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_flowssn.segmenters.monte_carlo import MonteCarloSegmenter

__all__ = ["SSN"]


class SSN(MonteCarloSegmenter):
    r"""Stochastic segmentation network (Monteiro et al. 2020, arXiv 2006.06015): a Gaussian of low rank over the logits.

    .. math:: \eta = \mu(x) + P(x) \epsilon + \sqrt{D(x)} \epsilon', \quad \epsilon \in R^r, \; \epsilon' \in R^{K d}

    is drawn without the Cholesky factorisation of the original, whose "covariance is not invertible" failure cannot happen here.
    With :class:`~monai_flowssn.networks.StreamlinedUNet` as ``net`` this is our SSN++, after the baseline of De Sousa Ribeiro et
    al. (2025, arXiv 2507.18838), which has no public code.

    Args:
        net: ``net(image) -> (B, K * (2 + rank), *S)``, any module: K means, K log-variances, then K channels for each column of
            P.
        num_classes: K, the background included.
        rank: r, columns of P.
        train_draws: m of the Monte Carlo likelihood.
        antithetic: use each training noise with both signs; needs an even ``train_draws``.
        warm_up: training steps at the start that learn the mean alone.

    Raises:
        ValueError: for options out of range, or a network with another number of outputs.
    """

    steps_done: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        num_classes: int = 2,
        rank: int = 10,
        train_draws: int = 20,
        antithetic: bool = False,
        warm_up: int = 0,
    ) -> None:
        super().__init__(num_classes=num_classes, train_draws=train_draws)
        if rank < 1 or warm_up < 0:
            raise ValueError(f"rank is {rank}, warm_up {warm_up}; they must be at least 1 and at least 0.")
        if antithetic and train_draws % 2:
            raise ValueError(f"antithetic draws come in pairs, but train_draws is {train_draws}: pass an even number.")
        self.net, self.rank, self.antithetic, self.warm_up = net, rank, antithetic, warm_up
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        terms = super().objective(image, masks)
        if self.training:
            self.steps_done += 1
        return terms

    def training_noise(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.training and self.warm_up and self.steps_done < self.warm_up:
            return tuple(torch.zeros_like(part) for part in self.draw_noise(image, 1))
        if not self.antithetic:
            return self.draw_noise(image, self.train_draws)
        half = self.draw_noise(image, self.train_draws // 2)
        return tuple(torch.cat([part, -part], dim=1) for part in half)

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return the factors (B, n, r), shared by all pixels, and the noise of each pixel (B, n, K, *S)."""
        shared = torch.randn(len(image), n, self.rank, device=image.device)
        return shared, torch.randn(len(image), n, self.num_classes, *image.shape[2:], device=image.device)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return mean (B, K, *S), standard deviation of the pixel noise (B, K, *S) and factors P (B, r, K, *S)."""
        out = self.net(image).float()
        k, r = self.num_classes, self.rank
        if out.shape[1] != k * (2 + r):
            raise ValueError(
                f"the network has {out.shape[1]} outputs; it needs num_classes * (2 + rank) = {k * (2 + r)}."
            )
        mean, log_variance, factors = out.split([k, k, r * k], dim=1)
        return mean, (log_variance.clamp(max=10).exp() + 1e-5).sqrt(), factors.unflatten(1, (r, k))

    def logits(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        mean, deviation, factors = (part[:, None] for part in code)
        shared, own = noise  # (B, m, r), (B, m, K, *S)
        with torch.autocast(own.device.type, enabled=False):  # half precision would blur every logit anew
            low_rank = shared @ factors.flatten(3).squeeze(1)  # (B, m, K * d)
        return mean + low_rank.view_as(own) + deviation * own
