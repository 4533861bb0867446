"""Bijections of R^L as ``torch.distributions`` transforms: (B, L) -> (B, L), log |det| (B,)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.nn import functional as F

__all__ = ["Coupling", "Linear", "Planar", "Radial"]

TINY = 1e-5  # keeps strict inequalities strict in float32


class _Bijection(Transform):
    """A bijection of R^L that remembers its last argument, so that a draw is scored without an inversion."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self) -> None:
        super().__init__(cache_size=1)

    def __hash__(self) -> int:
        return id(self)


class Planar(_Bijection):
    r"""Planar flow :math:`z + \hat u \tanh(w \cdot z + b)` (Rezende & Mohamed 2015, arXiv 1505.05770, eq. 10).

    :math:`\hat u` moves u along w so that :math:`w \cdot \hat u = m(w \cdot u) > -1`, which makes the map invertible (their
    appendix A.1). Ours is :math:`m(x) = \mathrm{softplus}(x + \log(e - 1)) - 1`, with m(0) = 0: with theirs, softplus(x) - 1,
    :math:`\hat u` grows without bound as w goes to 0.

    Args:
        u: (B, L).
        w: (B, L).
        b: (B, 1).
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        super().__init__()
        product = (w * u).sum(dim=1, keepdim=True)
        self.slope = (1 - TINY) * (F.softplus(product + math.log(math.e - 1)) - 1)  # w . u_hat
        self.u = u + (self.slope - product) * w / w.square().sum(dim=1, keepdim=True).clamp(min=TINY**2)
        self.w, self.b = w, b

    def _call(self, z: Tensor) -> Tensor:
        return z + self.u * torch.tanh((self.w * z).sum(dim=1, keepdim=True) + self.b)

    def _inverse(self, y: Tensor) -> Tensor:
        """Find a = w . z on the line: a + slope * tanh(a + b) = w . y has one root, within |slope| of w . y; bisect."""
        target = (self.w * y).sum(dim=1, keepdim=True)
        low, high = target - self.slope.abs(), target + self.slope.abs()
        for _ in range(60):
            a = (low + high) / 2
            above = a + self.slope * torch.tanh(a + self.b) > target
            low, high = torch.where(above, low, a), torch.where(above, a, high)
        return y - self.u * torch.tanh((low + high) / 2 + self.b)

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        a = torch.tanh((self.w * z).sum(dim=1, keepdim=True) + self.b)
        return torch.log1p(self.slope * (1 - a.square())).squeeze(1)


class Radial(_Bijection):
    r"""Radial flow :math:`z + \beta (z - z_0) / (\alpha + |z - z_0|)` (Rezende & Mohamed 2015, arXiv 1505.05770, eq. 14).

    :math:`\alpha = \mathrm{softplus}(a)` and :math:`\beta = -\alpha + \mathrm{softplus}(b)`, so :math:`\beta > -\alpha` and
    the map is invertible (their appendix A.2).

    Args:
        centre: z_0 (B, L).
        a: (B, 1).
        b: (B, 1).
    """

    def __init__(self, centre: Tensor, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.centre = centre
        self.alpha, self.gamma = F.softplus(a) + TINY, F.softplus(b) + TINY  # gamma = alpha + beta

    def _call(self, z: Tensor) -> Tensor:
        offset = z - self.centre
        r = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
        return self.centre + offset * (r + self.gamma) / (self.alpha + r)

    def _inverse(self, y: Tensor) -> Tensor:
        """Solve r (r + gamma) / (alpha + r) = |y - z_0| for r, a quadratic equation with one positive root."""
        offset = y - self.centre
        radius = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
        half = (self.gamma - radius) / 2
        root = (half.square() + self.alpha * radius).sqrt()
        # of the two forms of the root the one that does not cancel
        r = torch.where(half > 0, self.alpha * radius / (half + root), root - half)
        return self.centre + offset * (self.alpha + r) / (r + self.gamma)

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        r = torch.linalg.vector_norm(z - self.centre, dim=1, keepdim=True)
        # 1 + beta h and 1 + beta h - beta r h^2 on a common denominator: every term is positive
        tangential = (r + self.gamma).log() - (self.alpha + r).log()
        radial = (r.square() + 2 * self.alpha * r + self.alpha * self.gamma).log() - 2 * (self.alpha + r).log()
        return ((z.shape[1] - 1) * tangential + radial).squeeze(1)


class Linear(_Bijection):
    """The matrix (I + lower) (diag(exp(log_diagonal)) + upper), invertible by construction.

    Kingma & Dhariwal 2018, arXiv 1807.03039, eq. 10, without the fixed permutation.

    Args:
        lower: (B, L, L) strictly lower triangular.
        log_diagonal: (B, L).
        upper: (B, L, L) strictly upper triangular.
    """

    def __init__(self, lower: Tensor, log_diagonal: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.lower = lower + torch.eye(lower.shape[1], device=lower.device)
        self.upper = upper + torch.diag_embed(log_diagonal.exp())
        self.log_diagonal = log_diagonal

    def _call(self, z: Tensor) -> Tensor:
        return (self.lower @ (self.upper @ z[..., None])).squeeze(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(self.lower, y[..., None], upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(self.upper, half, upper=True).squeeze(-1)

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        return self.log_diagonal.sum(dim=1)


class Coupling(_Bijection):
    """Affine coupling: one part is kept and scales and shifts the other (Dinh et al. 2017, arXiv 1605.08803).

    Args:
        condition: (B, kept) -> log-scale and shift of the other part.
        cut: elements in the first part.
        first_kept: whether the first part is the kept one.
    """

    def __init__(self, condition: Callable[[Tensor], tuple[Tensor, Tensor]], cut: int, *, first_kept: bool) -> None:
        super().__init__()
        self.condition, self.cut, self.first_kept = condition, cut, first_kept

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        first, second = z[:, : self.cut], z[:, self.cut :]
        return (first, second) if self.first_kept else (second, first)

    def _join(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat([kept, changed] if self.first_kept else [changed, kept], dim=1)

    def _call(self, z: Tensor) -> Tensor:
        kept, other = self._parts(z)
        log_scale, shift = self.condition(kept)
        return self._join(kept, log_scale.exp() * other + shift)

    def _inverse(self, y: Tensor) -> Tensor:
        kept, other = self._parts(y)
        log_scale, shift = self.condition(kept)
        return self._join(kept, (other - shift) * (-log_scale).exp())

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        return self.condition(self._parts(z)[0])[0].sum(dim=1)
