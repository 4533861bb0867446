"""Solvers of dy/dt = f(t, y) over a time grid.

Those of a fixed grid are our own: torchdiffeq's refuse the grid of one time that a draw of one step has.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torchdiffeq import odeint

from monai_flowssn.sampling.grid import time_grid

__all__ = ["SOLVERS", "Solver", "dopri5", "euler", "heun", "midpoint", "solver_grid"]

Field = Callable[[Tensor, Tensor], Tensor]
Solver = Callable[[Field, Tensor, Tensor], Tensor]


def euler(field: Field, y: Tensor, grid: Tensor) -> Tensor:
    """Euler's scheme: order 1, one evaluation per step.

    Args:
        field: f(t, y) with t a scalar tensor.
        y: the start, any shape.
        grid: (T + 1,) ascending times; the first is the time of the start.

    Returns:
        y at the last time.
    """
    for t, end in pairwise(grid):
        y = y + (end - t) * field(t, y)
    return y


def midpoint(field: Field, y: Tensor, grid: Tensor) -> Tensor:
    """Midpoint scheme: order 2, two evaluations per step, none at the end of a step.

    Arguments, of which ``grid`` is (T + 1,), as of :func:`euler`.
    """
    for t, end in pairwise(grid):
        half = (end - t) / 2
        y = y + (end - t) * field(t + half, y + half * field(t, y))
    return y


def heun(field: Field, y: Tensor, grid: Tensor) -> Tensor:
    """Heun's scheme (trapezoid): order 2, two evaluations per step, one of them at its end.

    Arguments, of which ``grid`` is (T + 1,), as of :func:`euler`.
    """
    for t, end in pairwise(grid):
        slope = field(t, y)
        y = y + (end - t) / 2 * (slope + field(end, y + (end - t) * slope))
    return y


def dopri5(field: Field, y: Tensor, grid: Tensor) -> Tensor:
    """Dormand-Prince 5(4) of torchdiffeq, adaptive with tolerance 1e-6, from the first to the last time of ``grid`` (T + 1,)."""
    if len(grid) == 1:
        return y
    return odeint(field, y, grid[[0, -1]], method="dopri5", rtol=1e-6, atol=1e-6)[-1]


SOLVERS: dict[str, Solver] = {"euler": euler, "midpoint": midpoint, "heun": heun, "dopri5": dopri5}


def solver_grid(solver: str, steps: int, power: float = 1.0) -> Tensor:
    """Return the times that a solver is given.

    Args:
        solver: key of :data:`SOLVERS`.
        steps: T.
        power: of :func:`~monai_flowssn.sampling.time_grid`.

    Returns:
        (T + 1,) times; for the adaptive ``"dopri5"``, which finds its own in between, 0, 0.999 and 1 (:func:`markov` ends by one
        step over the last interval).
    """
    grid = time_grid(steps, power)
    return torch.tensor([0.0, 0.999, 1.0], device="cpu") if solver == "dopri5" else grid
