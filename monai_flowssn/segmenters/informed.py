"""The informed Flow-SSN: a flow that knows its image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_flowssn.segmenters.continuous import ContinuousFlowSSN

__all__ = ["InformedFlowSSN"]


class InformedFlowSSN(ContinuousFlowSSN):
    r"""A continuous Flow-SSN whose flow is told what the base knows of the image, and corrects it.

    In the paper (De Sousa Ribeiro et al. 2025, arXiv 2507.18838) the flow sees :math:`y_t` alone, one field for all images, so
    that images whose bases are near each other exchange masks. Here the base has F outputs more, features :math:`h(x)`, and the
    logits of the flow are added to those of the base:

    .. math:: \eta(y_t, t, x) = \mu(x) + f([y_t, \mu(x), h(x)], t), \quad u | x \sim N(\mu(x), \sigma^2 I).

    Training and sampling are as in :class:`ContinuousFlowSSN`. The base still runs once per image, whatever the number of draws.

    Args:
        base: ``base(image) -> (B, K + F, *S)``, any module: the mean of the base, then F >= 0 features.
        flow: ``flow(y, t) -> (B, K, *S)``, any module; y has 2K + F channels (K + F without ``show_mean``).
        show_mean: whether the flow sees the mean of the base.
        residual: whether the flow corrects the mean of the base; otherwise its logits stand alone.
        options: the others of ``ContinuousFlowSSN``.

    Raises:
        ValueError: for an option out of range, or a network with another number of outputs.
    """

    def __init__(
        self, base: nn.Module, flow: nn.Module, *, show_mean: bool = True, residual: bool = True, **options: Any
    ) -> None:
        super().__init__(base, flow, **options)
        self.base: nn.Module
        self.show_mean, self.residual = show_mean, residual

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the mean (B, K, *S) and standard deviation of the base, and the features (B, F, *S)."""
        out = self.base(image).float()
        if out.shape[1] < self.num_classes:
            raise ValueError(
                f"the base has {out.shape[1]} outputs; it needs num_classes = {self.num_classes} and one for each feature."
            )
        loc, features = out.tensor_split([self.num_classes], dim=1)
        return loc, torch.full_like(loc, self.base_std), features

    def flow_logits(self, y: Tensor, t: Tensor, code: tuple[Tensor, ...]) -> Tensor:
        loc, _, features = code
        seen = [y, loc, features] if self.show_mean else [y, features]
        logits = self._checked(self.flow(torch.cat(seen, dim=1), t))
        return loc + logits if self.residual else logits
