"""Random numbers at random access: one key per pixel stands for as many uniform numbers as a draw needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["categorical", "draw_keys", "normal", "uniform"]

_GOLDEN = 0x9E3779B97F4A7C15
_MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def _signed(value: int) -> int:
    """Return the 64 bits of an unsigned number as torch's signed int64 has them; its products and sums wrap around."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift right without copying the sign."""
    return (z >> bits).bitwise_and_(2 ** (64 - bits) - 1)


def draw_keys(*size: int, device: torch.device | None = None) -> Tensor:
    """Return random keys of 64 bits (*size), int64, from torch's global random state."""
    return torch.randint(-(2**63), 2**63 - 1, size, dtype=torch.int64, device=device)


def uniform(keys: Tensor, counter: int) -> Tensor:
    """Return number ``counter`` of the stream that each key starts.

    The streams are those of SplitMix64 (Steele, Lea & Flood 2014, doi 10.1145/2660193.2660195), a hash of
    ``key + (counter + 1) * golden ratio``, so that any number of a stream costs the same and none has to be stored.

    Args:
        keys: any shape, int64, from ``draw_keys``.
        counter: which number, at least 0.

    Returns:
        The shape of the keys, float32 in [0, 1), multiples of 2 ** -24.

    Example:
        >>> keys = torch.tensor([1234567])
        >>> round(uniform(keys, 0).item(), 6), round(uniform(keys, 1).item(), 6)
        (0.35008, 0.173644)
    """
    z = keys + _signed((counter + 1) * _GOLDEN)
    for bits, factor in _MIXERS:
        z = z.bitwise_xor_(_shifted(z, bits)).mul_(_signed(factor))
    z.bitwise_xor_(_shifted(z, 31))
    return _shifted(z, 40).float() * 2.0**-24


def normal(keys: Tensor, counter: int) -> Tensor:
    """Return number ``counter`` of a stream of standard normal ones that each key starts (Box & Muller 1958).

    It is made of the uniform numbers ``2 * counter`` and ``2 * counter + 1``. Arguments as of ``uniform``.

    Returns:
        The shape of the keys, float32, of magnitude 5.8 at most.
    """
    radius = (-2 * torch.log(1 - uniform(keys, 2 * counter))).sqrt()  # 1 - u is above 0
    return radius * torch.cos(2 * math.pi * uniform(keys, 2 * counter + 1))


def categorical(probabilities: Tensor, u: Tensor) -> Tensor:
    """Choose a class by inversion of the cumulative distribution.

    Args:
        probabilities: (B, K, ...), summing to 1 over K.
        u: (B, ...) uniform in [0, 1).

    Returns:
        (B, ...) int64: class k with probability ``probabilities[:, k]``.

    Example:
        >>> categorical(torch.tensor([[0.2, 0.5, 0.3]] * 3), torch.tensor([0.1, 0.2, 0.9]))
        tensor([0, 1, 2])
    """
    edges = probabilities[:, :-1].cumsum(dim=1)  # the last edge is 1 up to rounding, and u is below it
    return (edges <= u[:, None]).sum(dim=1)
