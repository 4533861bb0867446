"""Velocities that carry the base of a flow to the corners of the simplex, given the class probabilities at (t, y_t)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from monai_flowssn.sampling.solvers import Field, Solver

__all__ = ["VELOCITIES", "markov", "path"]


def markov(probabilities: Field, u: Tensor, grid: Tensor, solver: Solver) -> Tensor:
    r"""Integrate :math:`(p(t, y) - y) / (1 - t)`, the marginal velocity of flow matching (Lipman et al. 2023, arXiv 2210.02747).

    The last interval is one Euler step whatever the solver: it lands on p(t, y) itself, a probability map, and 1 / (1 - t) is
    never evaluated at t = 1.

    Args:
        probabilities: p(t, y), with values (B, K, *S) that sum to 1 over K.
        u: (B, K, *S) sample of the base.
        grid: (T + 1,) times from 0 to 1.
        solver: scheme for all intervals but the last.

    Returns:
        (B, K, *S) probabilities.
    """
    y = solver(lambda t, y: (probabilities(t, y) - y) / (1 - t), u, grid[:-1])
    return probabilities(grid[-2], y)


def path(probabilities: Field, u: Tensor, grid: Tensor, solver: Solver) -> Tensor:
    """Integrate ``p(t, y) - u``, the authors' velocity (De Sousa Ribeiro et al. 2025, arXiv 2507.18838, public code).

    u cancels, so the end is a weighted mean of the probabilities along the path; under Euler on a uniform grid the plain mean.
    Arguments and result (B, K, *S) as of :func:`markov`, with the solver used for all intervals.
    """
    y = solver(lambda t, y: probabilities(t, y) - u, u, grid)
    y = y.clamp(min=0)  # high-order schemes have negative weights, and u cancels up to rounding
    return y / y.sum(dim=1, keepdim=True)


VELOCITIES: dict[str, Callable[[Field, Tensor, Tensor, Solver], Tensor]] = {"markov": markov, "path": path}
