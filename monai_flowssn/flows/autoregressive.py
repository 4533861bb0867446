"""Affine autoregressive flows over the elements of a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["AutoregressiveFlow"]


def _affine(loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    return loc, raw.clamp(math.log(1e-5), 10)


def _gated(loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    scale = torch.sigmoid(raw + 1) + 1e-5
    return (1 - scale) * loc, scale.log()


KINDS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {"affine": _affine, "gated": _gated}


class AutoregressiveFlow(nn.Module):
    """Maps whose elements are shifted and scaled by functions of the elements before them.

    Known arguments make both directions one parallel pass: ``forward`` draws, as the inverse autoregressive flow of Kingma et al.
    (2016, arXiv 1606.04934), and ``score`` normalises, as the masked autoregressive flow of Papamakarios et al. (2017,
    arXiv 1705.07057). They are two different distributions, not each other's inverse.

    Args:
        nets: ``net(x) -> (B, 2K, *S)``, location and raw scale of each element from the elements before it in raster order, or
            ``net(x, image)``. Every second one sees the order reversed.
        channels: K.
        kind: ``"affine"``, scale exp(raw); ``"gated"``, scale sigmoid(raw + 1) and the location times one minus it;
            ``"volume_preserving"``, scale 1, for which the nets have K outputs.

    Raises:
        ValueError: for an unknown kind, or a net with another number of outputs.
    """

    def __init__(
        self,
        nets: nn.Module | Sequence[nn.Module],
        *,
        channels: int,
        kind: Literal["affine", "gated", "volume_preserving"] = "affine",
    ) -> None:
        super().__init__()
        if kind not in (*KINDS, "volume_preserving"):
            raise ValueError(f"kind is {kind!r}; choose 'affine', 'gated' or 'volume_preserving'.")
        self.nets = nn.ModuleList([nets] if isinstance(nets, nn.Module) else nets)
        self.channels, self.kind = channels, kind

    def forward(self, u: Tensor, *image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the draw (B, K, *S) that noise u (B, K, *S) becomes, and log |det| of the Jacobian (B,)."""
        log_det = u.new_zeros(len(u))
        for net, axes in self._layers(u):
            u = u.flip(axes)
            loc, log_scale = self._condition(net, u, *(part.flip(axes) for part in image))
            u = (loc + log_scale.exp() * u).flip(axes)
            log_det = log_det + log_scale.flatten(1).sum(dim=1)
        return u, log_det

    def score(self, y: Tensor, *image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise (B, K, *S) that y (B, K, *S) came from, and log |det| of that map's Jacobian (B,)."""
        log_det = y.new_zeros(len(y))
        for net, axes in self._layers(y):
            y = y.flip(axes)
            loc, log_scale = self._condition(net, y, *(part.flip(axes) for part in image))
            y = ((y - loc) * (-log_scale).exp()).flip(axes)
            log_det = log_det - log_scale.flatten(1).sum(dim=1)
        return y, log_det

    def _layers(self, x: Tensor) -> list[tuple[nn.Module, tuple[int, ...]]]:
        """Every net with the axes to flip around it."""
        return [(net, tuple(range(2, x.ndim)) if i % 2 else ()) for i, net in enumerate(self.nets)]

    def _condition(self, net: nn.Module, x: Tensor, *image: Tensor) -> tuple[Tensor, Tensor]:
        out = net(x, *image).to(x.dtype)
        expected = self.channels * (1 if self.kind == "volume_preserving" else 2)
        if out.shape[1] != expected:
            raise ValueError(f"a net of the {self.kind} flow has {out.shape[1]} outputs; it needs {expected}.")
        if self.kind == "volume_preserving":
            return out, torch.zeros_like(out)
        return KINDS[self.kind](*out.chunk(2, dim=1))
