"""The autoregressive Flow-SSN that knows its image, and may begin at an SSN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_flowssn.segmenters.autoregressive import AutoregressiveFlowSSN, Nets

__all__ = ["InformedAutoregressiveFlowSSN"]


class InformedAutoregressiveFlowSSN(AutoregressiveFlowSSN):
    r"""An autoregressive Flow-SSN whose flow sees what the base knows of the image, from a base of low rank.

    In the paper (De Sousa Ribeiro et al. 2025, arXiv 2507.18838, sec. 5.1) the flow sees noise alone, and noise that is
    independent from pixel to pixel: what concerns the whole image, such as whether there is a lesion, it has to carry from strip
    to strip. Here the base has r columns of factors P(x) and F features h(x) beside its mean,

    .. math:: u = \mu(x) + P(x) \epsilon + \sigma \epsilon', \quad \eta = m(u_<, \mu, h) + s(u_<, \mu, h) \odot u,

    so that an identity flow is an SSN (Monteiro et al. 2020, arXiv 2006.06015), and what it learns is added to that.

    Args:
        base: ``base(image) -> (B, K (1 + r) + F, *S)``, any module: means, then K channels for each column of P, then features.
        flow: ``flow(u, context) -> (B, 2K, *S)``, as of ``AutoregressiveFlowSSN``; the context has K + F channels
            (``StripTransformer(context_channels=K + F)``).
        rank: r >= 0, columns of P.
        options: the others of ``AutoregressiveFlowSSN``.

    Raises:
        ValueError: for options out of range, or a network with another number of outputs.
    """

    def __init__(self, base: nn.Module, flow: Nets, *, rank: int = 10, **options: Any) -> None:
        super().__init__(base, flow, **options)
        if rank < 0:
            raise ValueError(f"rank is {rank}; the base has that many columns of factors: pass 0 for none.")
        if rank and self.entropy_weight:
            raise ValueError(
                "entropy_weight needs the density of the base, which is known for rank 0 alone: pass either."
            )
        self.base: nn.Module
        self.rank = rank

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return the noise of each pixel (B, n, K, *S), and the factors (B, n, r), shared by all pixels."""
        shared = torch.randn(len(image), n, self.rank, device=image.device)
        return (*super().draw_noise(image, n), shared)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return mean and standard deviation (B, K, *S) of the base, factors (B, r, K, *S), and the context (B, K + F, *S)."""
        out, k, r = self.base(image).float(), self.num_classes, self.rank
        if out.shape[1] < k * (1 + r):
            raise ValueError(
                f"the base has {out.shape[1]} outputs; it needs num_classes * (1 + rank) = {k * (1 + r)}, and one for each "
                "feature."
            )
        loc, factors, features = out.tensor_split([k, k * (1 + r)], dim=1)
        scale = torch.full_like(loc, self.base_std)
        return loc, scale, factors.unflatten(1, (r, k)), torch.cat([loc, features], dim=1)

    def _push(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        loc, scale, factors, context = (part[:, None] for part in code)
        own, shared = noise  # (B, m, K, *S), (B, m, r)
        with torch.autocast(own.device.type, enabled=False):  # half precision would blur every logit anew
            low_rank = (shared @ factors.flatten(3).squeeze(1)).view_as(own)
        u = loc + scale * own + low_rank
        context = context.expand(-1, own.shape[1], *context.shape[2:]).flatten(0, 1)
        logits, log_det = self.flow(u.flatten(0, 1), context)
        return logits.view_as(u), log_det.view(u.shape[:2])
