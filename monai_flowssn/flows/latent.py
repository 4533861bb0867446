"""Flows on latent vectors: ``torch.distributions`` transforms whose parameters a context gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Transform

from monai_flowssn.flows.transforms import Coupling, Linear, Planar, Radial

__all__ = ["GlowFlow", "LatentFlow", "NICEFlow", "PlanarFlow", "RadialFlow"]


class LatentFlow(nn.Module, ABC):
    """Several steps of one kind of bijection of R^L, their parameters an MLP of three layers of the context.

    ``flow(context)`` returns the transforms, for ``torch.distributions.TransformedDistribution``. Each caches its last argument,
    so that a draw is scored without an inversion.

    Args:
        latent_dim: L.
        context_dim: width of the context.
        steps: number of bijections.
        hidden: width of the MLP.

    Example:
        >>> flow = PlanarFlow(6, 128, steps=4)
        >>> len(flow(torch.zeros(1, 128)))
        4
    """

    def __init__(self, latent_dim: int, context_dim: int, *, steps: int = 4, hidden: int = 64) -> None:
        super().__init__()
        if latent_dim < 2 or steps < 1:
            raise ValueError(f"latent_dim is {latent_dim}, steps {steps}; they must be at least 2 and at least 1.")
        self.latent_dim, self.steps = latent_dim, steps
        self.conditioner = _mlp(context_dim, steps * self.width, hidden)

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of parameters of one step."""

    @abstractmethod
    def step(self, index: int, parameters: Tensor, context: Tensor) -> list[Transform]:
        """Return the transforms of one step from its parameters (B, width) and the context (B, context_dim)."""

    def forward(self, context: Tensor) -> list[Transform]:
        """Return the transforms, in the order of application, for context (B, context_dim)."""
        parameters = self.conditioner(context).unflatten(1, (self.steps, -1))  # (B, steps, width)
        return [part for i in range(self.steps) for part in self.step(i, parameters[:, i], context)]


class PlanarFlow(LatentFlow):
    """Steps of :class:`~monai_flowssn.flows.transforms.Planar`. Arguments as of ``LatentFlow``.

    The elements of u and w are bounded by 2: without a bound both grow for as long as training goes on, until a step is a jump
    and the loss explodes.
    """

    @property
    def width(self) -> int:
        return 2 * self.latent_dim + 1

    def step(self, index: int, parameters: Tensor, context: Tensor) -> list[Transform]:
        u, w, b = parameters.split([self.latent_dim, self.latent_dim, 1], dim=1)
        return [Planar(_bounded(u), _bounded(w), b)]


class RadialFlow(LatentFlow):
    """Steps of :class:`~monai_flowssn.flows.transforms.Radial`. Arguments as of ``LatentFlow``."""

    @property
    def width(self) -> int:
        return self.latent_dim + 2

    def step(self, index: int, parameters: Tensor, context: Tensor) -> list[Transform]:
        centre, a, b = parameters.split([self.latent_dim, 1, 1], dim=1)
        return [Radial(centre, a, b)]


class GlowFlow(LatentFlow):
    """Steps of Glow on a vector (Kingma & Dhariwal 2018, arXiv 1807.03039; conditional in Selvan et al. 2020, arXiv 2006.02683).

    A scale and shift from the context, an invertible matrix in LU form from the context, and an affine coupling of the two halves
    conditioned on the context; the halves swap from step to step. Log-scales are bounded by 2. Arguments as of ``LatentFlow``.
    """

    def __init__(self, latent_dim: int, context_dim: int, *, steps: int = 4, hidden: int = 64) -> None:
        super().__init__(latent_dim, context_dim, steps=steps, hidden=hidden)
        half = latent_dim // 2
        sizes = [(half, latent_dim - half) if i % 2 == 0 else (latent_dim - half, half) for i in range(steps)]
        self.couplings = nn.ModuleList(_mlp(kept + context_dim, 2 * changed, hidden) for kept, changed in sizes)

    @property
    def width(self) -> int:
        return self.latent_dim * (self.latent_dim + 2)

    def step(self, index: int, parameters: Tensor, context: Tensor) -> list[Transform]:
        n = self.latent_dim
        log_scale, shift, matrix = parameters.split([n, n, n * n], dim=1)
        coupling = self.couplings[index]

        def condition(kept: Tensor) -> tuple[Tensor, Tensor]:
            log_scale, shift = coupling(torch.cat([kept, context], dim=1)).chunk(2, dim=1)
            return _bounded(log_scale), shift

        matrix = matrix.unflatten(1, (n, n))
        diagonal = _bounded(matrix.diagonal(dim1=1, dim2=2))
        return [
            AffineTransform(shift, _bounded(log_scale).exp(), event_dim=1, cache_size=1),
            Linear(matrix.tril(-1), diagonal, matrix.triu(1)),
            Coupling(condition, n // 2, first_kept=index % 2 == 0),
        ]


class NICEFlow(nn.Module):
    """Additive couplings, then a scale of each element (NICE, Dinh et al. 2015, arXiv 1410.8516, sec. 3), without context.

    The couplings change the halves of the vector in turn, even and odd elements in the public code of the Joint Probabilistic
    U-Net, which differs by the names of the elements. Couplings keep volumes: log |det| is the sum of the log-scales. They begin
    at 0, as does each coupling: the flow starts as the identity.

    Args:
        latent_dim: L, at least 2.
        steps: number of couplings.
        hidden: width of their networks.

    Example:
        >>> [type(transform).__name__ for transform in NICEFlow(8, steps=2)()]
        ['Coupling', 'Coupling', 'AffineTransform']
    """

    def __init__(self, latent_dim: int, *, steps: int = 4, hidden: int = 30) -> None:
        super().__init__()
        if latent_dim < 2 or steps < 1:
            raise ValueError(f"latent_dim is {latent_dim}, steps {steps}; they must be at least 2 and at least 1.")
        self.cut = latent_dim // 2
        sizes = [(self.cut, latent_dim - self.cut), (latent_dim - self.cut, self.cut)]
        shifts = [_mlp(*sizes[i % 2], hidden) for i in range(steps)]
        for parameter in (p for shift in shifts for p in shift[-1].parameters()):
            nn.init.zeros_(parameter)
        self.shifts = nn.ModuleList(shifts)
        self.log_scale = nn.Parameter(torch.zeros(1, latent_dim))

    def forward(self) -> list[Transform]:
        """Return the transforms, in the order of application."""
        couplings = [
            Coupling(partial(_additive, shift), self.cut, first_kept=i % 2 == 0) for i, shift in enumerate(self.shifts)
        ]
        return [*couplings, AffineTransform(0.0, self.log_scale.exp(), event_dim=1, cache_size=1)]


def _additive(shift: nn.Module, kept: Tensor) -> tuple[Tensor, Tensor]:
    moved = shift(kept)
    return torch.zeros_like(moved), moved


def _bounded(parameter: Tensor) -> Tensor:
    return 2 * torch.tanh(parameter / 2)


def _mlp(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    layers = (nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs))
    return nn.Sequential(*layers)
