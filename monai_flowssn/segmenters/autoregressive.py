"""The discrete-time autoregressive Flow-SSN and its dual objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from monai_flowssn.annotations import pick_rater
from monai_flowssn.flows import AutoregressiveFlow
from monai_flowssn.segmenters.gaussian_base import gaussian_base
from monai_flowssn.segmenters.monte_carlo import MonteCarloSegmenter, log_likelihood, mean_log_likelihood

__all__ = ["AutoregressiveFlowSSN", "DualFlowSSN"]

Nets = nn.Module | Sequence[nn.Module]
Kind = Literal["affine", "gated", "volume_preserving"]


class AutoregressiveFlowSSN(MonteCarloSegmenter):
    r"""Flow stochastic segmentation network in discrete time (De Sousa Ribeiro et al. 2025, arXiv 2507.18838, sec. 5.1).

    A large network gives the base, :math:`u | x \sim N(\mu(x), \sigma^2 I)`, once per image. A light inverse autoregressive flow
    turns it into logits in one parallel pass, :math:`\eta = m(u_<) + s(u_<) \odot u`, whose covariance can have any rank.

    Args:
        base: ``base(image) -> (B, K or 2K, *S)``, any module; 2K outputs are the mean and the log standard deviation of the base.
            ``None`` is the fixed prior N(0, I); the flow is then called as ``flow(u, image)``.
        flow: ``flow(u) -> (B, 2K, *S)``, location and raw scale of each element from the elements before it, or several such nets
            (:class:`~monai_flowssn.flows.AutoregressiveFlow`). :class:`~monai_flowssn.networks.StripTransformer` is one.
        num_classes: K, the background included.
        base_std: standard deviation of the base where ``base`` has K outputs.
        kind: how the nets act, as of ``AutoregressiveFlow``; ``"volume_preserving"`` ones have K outputs.
        train_draws: m of the Monte Carlo likelihood.
        entropy_weight: beta of the entropy-regularised objective (eq. 15), which subtracts beta times the entropy of the logits.

    Raises:
        ValueError: for options out of range, or a network with another number of outputs.
    """

    def __init__(
        self,
        base: nn.Module | None,
        flow: Nets,
        *,
        num_classes: int = 2,
        base_std: float = 1.0,
        kind: Kind = "affine",
        train_draws: int = 16,
        entropy_weight: float = 0.0,
    ) -> None:
        super().__init__(num_classes=num_classes, train_draws=train_draws)
        if base_std <= 0:
            raise ValueError(f"base_std is {base_std}; a standard deviation is above 0.")
        if entropy_weight and kind == "volume_preserving":
            raise ValueError(
                f"entropy_weight is {entropy_weight}, but a volume-preserving flow keeps the entropy of its base: "
                "pass 0, or another kind."
            )
        self.base, self.flow = base, AutoregressiveFlow(flow, channels=num_classes, kind=kind)
        self.base_std, self.entropy_weight = base_std, entropy_weight

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        return (torch.randn(len(image), n, self.num_classes, *image.shape[2:], device=image.device),)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return mean and standard deviation (B, K, *S) of the base, and the image where the flow sees it."""
        loc, scale = gaussian_base(self.base, image, self.num_classes, self.base_std)
        return (loc, scale, image) if self.base is None else (loc, scale)

    def logits(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        return self._push(code, noise)[0]

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        if not self.entropy_weight:
            return super().objective(image, masks)
        logits, log_density = self.scored_logits(image)
        nll = -mean_log_likelihood(logits, pick_rater(masks).squeeze(1))
        entropy = -log_density.mean() / image[0, 0].numel()
        return {"loss": nll - self.entropy_weight * entropy, "nll": nll, "entropy": entropy}

    def scored_logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return m fresh logits (B, m, K, *S) and their log-density (B, m) for image (B, C, *S)."""
        code, noise = self.encode(image), self.training_noise(image)
        logits, log_det = self._push(code, noise)
        # log N(u; loc, scale) needs no more of u than its noise
        log_base = -0.5 * noise[0].square() - code[1][:, None].log() - 0.5 * math.log(2 * math.pi)  # (B, m, K, *S)
        return logits, log_base.flatten(2).sum(dim=2) - log_det

    def _push(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return logits (B, m, K, *S) and the log-determinant of the flow (B, m)."""
        loc, scale, *image = (part[:, None].expand(-1, noise[0].shape[1], *part.shape[1:]) for part in code)
        u = loc + scale * noise[0]  # (B, m, K, *S)
        logits, log_det = self.flow(u.flatten(0, 1), *(part.flatten(0, 1) for part in image))
        return logits.view_as(u), log_det.view(u.shape[:2])


class DualFlowSSN(AutoregressiveFlowSSN):
    r"""Autoregressive Flow-SSN with a second flow that learns the density of its logits (arXiv 2507.18838, below eq. 14).

    Maximises :math:`E_q[\log p(y | \eta)] - KL(q || r)`, in nats per pixel, where q is the inverse autoregressive flow, fast to
    draw from, and r a masked autoregressive flow with a base of its own, fast to score; both are trained at once. Draws are those
    of q.

    Args:
        base: as of ``AutoregressiveFlowSSN``, like all that is not listed here, but not None.
        flow: of q.
        density_base: base of r.
        density_flow: nets of r.
    """

    def __init__(
        self,
        base: nn.Module,
        flow: Nets,
        *,
        density_base: nn.Module,
        density_flow: Nets,
        num_classes: int = 2,
        base_std: float = 1.0,
        kind: Kind = "affine",
        train_draws: int = 16,
    ) -> None:
        super().__init__(base, flow, num_classes=num_classes, base_std=base_std, kind=kind, train_draws=train_draws)
        if base is None or density_base is None:
            raise ValueError(
                "base or density_base is None; the dual objective needs both to see the image: pass networks."
            )
        self.density_base = density_base
        self.density_flow = AutoregressiveFlow(density_flow, channels=num_classes, kind=kind)

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        logits, log_q = self.scored_logits(image)
        pixels = image[0, 0].numel()
        likelihood = log_likelihood(logits, pick_rater(masks).squeeze(1)).mean() / pixels
        kl = (log_q - self.log_density(image, logits)).mean() / pixels
        return {"loss": kl - likelihood, "log_likelihood": likelihood, "kl": kl}

    def log_density(self, image: Tensor, logits: Tensor) -> Tensor:
        """Return log r(logits | image) (B, m) for logits (B, m, K, *S) and image (B, C, *S)."""
        u, log_det = self.density_flow.score(logits.flatten(0, 1))
        loc, scale = gaussian_base(self.density_base, image, self.num_classes, self.base_std)
        log_base = Normal(loc[:, None], scale[:, None], validate_args=False).log_prob(u.view_as(logits))
        return log_base.flatten(2).sum(dim=2) + log_det.view(logits.shape[:2])
