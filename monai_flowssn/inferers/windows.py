"""Draws of images that are larger than the window of the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

from monai.data.utils import compute_importance_map
from monai.utils import ensure_tuple
from torch import Tensor
from torch.nn import functional as F

from monai_flowssn.segmenters.base import StochasticSegmenter

__all__ = ["windowed_draws"]

BYTES_AT_ONCE = 2**30


def windowed_draws(
    network: StochasticSegmenter,
    image: Tensor,
    n: int,
    *,
    window: Sequence[int],
    overlap: float = 0.25,
    draws_at_once: int | None = None,
    noise: tuple[Tensor, ...] | None = None,
) -> Iterator[Tensor]:
    """Draw segmentations window by window so that each stays one hypothesis over the whole image.

    One noise for the whole image: noise that has a place is cropped to each window, noise that has none (a latent vector) is the
    same in all of them. Windows that overlap therefore see the same randomness where they do, and are blended by their
    probabilities with Gaussian weights, as in MONAI's ``sliding_window_inference``, whose windows draw their own noise and
    disagree at their borders.

    Args:
        network: any method.
        image: (B, C, *S).
        n: number of draws N.
        window: size that the network sees, one that it accepts.
        overlap: share of a window, along each axis, that the next one covers at least.
        draws_at_once: draws of a chunk; memory is that of one chunk, time that of one ``encode`` per window and chunk. By default
            as many as take 1 GiB with their noise, at least one.
        noise: what ``network.draw_noise`` returns for the image padded to :func:`padded_size`; drawn afresh, chunk by chunk, if
            not given.

    Yields:
        (B, M, K, *S) class probabilities of M <= ``draws_at_once`` draws, N in all. Let go of each before asking for the next.

    Raises:
        ValueError: for sizes or an overlap out of range.
    """
    size, window = tuple(image.shape[2:]), ensure_tuple(window)
    if len(window) != len(size) or min(window) < 1 or not 0 <= overlap < 1 or n < 1 or (draws_at_once or 1) < 1:
        raise ValueError(
            f"window {window}, overlap {overlap}, n {n}, draws_at_once {draws_at_once} for an image of {size}; the window "
            "needs one positive size per axis, the overlap is in [0, 1), and the numbers are at least 1."
        )
    align = _noise_stride(network, image, window)
    padded = padded_size(size, window, align)
    image = F.pad(image, _padding(size, padded), mode="replicate") if padded != size else image
    corners = list(product(*(_starts(p, w, align, overlap) for p, w in zip(padded, window))))
    most = draws_at_once or max(1, BYTES_AT_ONCE // (8 * len(image) * network.num_classes * math.prod(padded)))
    chunk = math.ceil(n / math.ceil(n / most))  # as equal as can be
    for start in range(0, n, chunk):
        m = min(chunk, n - start)
        part = network.draw_noise(image, m) if noise is None else tuple(z[:, start : start + m] for z in noise)
        yield _inside(_blend(network, image, m, part, window, corners), tuple(slice(0, s) for s in size))
        del part


def padded_size(size: Sequence[int], window: Sequence[int], align: int = 1) -> tuple[int, ...]:
    """Return the size that windows cover which start at multiples of ``align``.

    >>> padded_size((100, 200), (128, 128), 16)
    (128, 208)
    """
    return tuple(w + max(0, math.ceil((s - w) / align)) * align for s, w in zip(size, window))


def _noise_stride(network: StochasticSegmenter, image: Tensor, window: tuple[int, ...]) -> int:
    """Return the number of pixels along an edge that the coarsest noise with a place stands for."""
    probe = network.draw_noise(image.new_zeros(1, image.shape[1], *window), 1)
    return max((_stride(part, window) or 1 for part in probe), default=1)


def _stride(part: Tensor, size: tuple[int, ...]) -> int | None:
    """Return the pixels per element of noise (B, N, ..., *S / stride), or None if it has no place."""
    tail = part.shape[-len(size) :]
    if part.ndim < 2 + len(size) or size[0] % tail[0]:
        return None
    stride = size[0] // tail[0]
    return stride if tuple(t * stride for t in tail) == size else None


def _padding(size: tuple[int, ...], padded: tuple[int, ...]) -> list[int]:
    return [edge for s, p in zip(reversed(size), reversed(padded)) for edge in (0, p - s)]


def _starts(size: int, window: int, align: int, overlap: float) -> list[int]:
    """Return evenly spread starts, multiples of ``align``, of windows that cover ``size``."""
    step = max(align, int(window * (1 - overlap)) // align * align)
    count = math.ceil((size - window) / step)
    return [0] + [round((size - window) * i / count / align) * align for i in range(1, count + 1)]


def _blend(
    network: StochasticSegmenter,
    image: Tensor,
    m: int,
    noise: tuple[Tensor, ...],
    window: tuple[int, ...],
    corners: list[tuple[int, ...]],
) -> Tensor:
    """Return m draws (B, m, K, *S) from noise, tensors (B, m, ...), by windows at the corners."""
    size = tuple(image.shape[2:])
    strides = [_stride(part, size) for part in noise]
    weight = compute_importance_map(window, mode="gaussian", device=image.device).clamp(min=1e-3)
    total = image.new_zeros(len(image), m, network.num_classes, *size, dtype=weight.dtype)
    weights = weight.new_zeros(size)
    for corner in corners:
        place = tuple(slice(c, c + w) for c, w in zip(corner, window))
        seen = tuple(part if s is None else _inside(part, place, s) for part, s in zip(noise, strides))
        _inside(total, place).add_(weight * network.sample(_inside(image, place), m, seen))
        weights[place] += weight
    return total.div_(weights)


def _inside(x: Tensor, place: tuple[slice, ...], stride: int = 1) -> Tensor:
    """Return the part (..., *S) of x that lies at the place, which counts in steps of 1 / stride of the elements of x."""
    before = (slice(None),) * (x.ndim - len(place))
    return x[before + tuple(slice(s.start // stride, s.stop // stride) for s in place)]
