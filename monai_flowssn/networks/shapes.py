"""What networks that halve their input say to a size that cannot be halved."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_divisible"]


def check_divisible(size: Sequence[int], stride: int) -> None:
    """Raise a ``ValueError`` that names the fix unless every spatial size is divisible by ``stride``.

    >>> check_divisible((64, 32), 8)
    """
    if any(each % stride for each in size):
        fit = tuple(-(-each // stride) * stride for each in size)
        raise ValueError(
            f"spatial size {tuple(size)} cannot be halved that often; every size must be divisible by {stride} "
            f"(patch times 2 per further level): pad the image to {fit} (DivisiblePadd) or use fewer levels."
        )
