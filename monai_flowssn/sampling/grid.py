"""Time grids."""

from __future__ import annotations

import torch
from torch import Tensor


def time_grid(steps: int, power: float = 1.0) -> Tensor:
    r"""Return the times :math:`t_i = (i / T)^p`, i = 0 .. T.

    Args:
        steps: T, at least 1.
        power: p, above 0; 1 is uniform, above 1 finer at the start.

    Returns:
        (T + 1,) from 0 to 1.

    Raises:
        ValueError: if ``steps`` is below 1 or ``power`` not above 0.

    Example:
        >>> time_grid(4, 2.0)
        tensor([0.0000, 0.0625, 0.2500, 0.5625, 1.0000])
    """
    if steps < 1 or int(steps) != steps:
        raise ValueError(f"steps is {steps}; a draw takes a whole number of steps, at least one: pass steps >= 1.")
    if not power > 0:
        raise ValueError(f"the grid power is {power}; it must be above 0: pass 1 for a uniform grid.")
    return torch.linspace(0, 1, int(steps) + 1, device="cpu") ** power
