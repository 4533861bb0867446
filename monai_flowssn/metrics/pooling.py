"""Values of all cases together rather than means of values per case."""

from __future__ import annotations

from torch import Tensor


def pool(parts: Tensor) -> Tensor:
    """The value of a pooled metric from the sums of its parts: ``Σ_j |parts_j| / weight``.

    Args:
        parts: (..., J + 1) sums over cases, the weight last.

    Returns:
        (...), NaN where the weight is 0.

    Example:
        >>> import torch
        >>> pool(torch.tensor([[1.5, 2.0], [0.0, 1.0]]).sum(0))  # three pairs of two cases, one of which has two
        tensor(0.5000)
    """
    return parts[..., :-1].abs().sum(-1) / parts[..., -1]
