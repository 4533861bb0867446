"""How MONAI's engines call a stochastic segmenter."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from monai_flowssn.inferers.windows import windowed_draws

__all__ = ["CentreDrawInferer", "DrawInferer", "LossInferer", "WeightedDrawInferer", "cpu_autocast"]


def cpu_autocast(device: torch.device, enabled: bool = True) -> torch.autocast:
    """Return an autocast context to bfloat16 that is active only on a CPU that computes in it.

    MONAI's engines autocast on CUDA alone. On CPUs without bfloat16 instructions it would be emulated, and slower.
    """
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # torch has no public question for it
    fast = enabled and device.type == "cpu" and supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=fast)


class LossInferer(Inferer):
    """Call ``network(image, masks)`` for training: the loss terms, in the precision that the CPU is fastest in.

    Args:
        autocast: whether to use bfloat16 where the CPU has it.
    """

    def __init__(self, *, autocast: bool = True) -> None:
        super().__init__()
        self.autocast = autocast

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss terms of images (B, C, *S) and their masks (B, R, *S), which follow the network."""
        with cpu_autocast(inputs.device, self.autocast):
            return network(inputs, *args, **kwargs)


class SamplingInferer(Inferer):
    """What inferers that draw have in common.

    Args:
        n: number of draws N.
        seed: where given, the draws of an image are a function of this seed and the image, whatever batch or process it is in;
            the global random state is left as it was. The two inferers make the same draws of one seed.
        window: where given, images are drawn by windows of this size (:func:`~monai_flowssn.inferers.windowed_draws`).
        overlap: share of a window that the next one covers at least.
        autocast: whether to use bfloat16 where the CPU has it.

    Raises:
        ValueError: if ``n`` is below 1.
    """

    def __init__(
        self,
        n: int = 16,
        *,
        seed: int | None = None,
        window: Sequence[int] | None = None,
        overlap: float = 0.25,
        autocast: bool = True,
    ) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n is {n}; at least one draw is needed: pass n >= 1.")
        self.n, self.seed, self.window, self.overlap, self.autocast = n, seed, window, overlap, autocast


class DrawInferer(SamplingInferer):
    """Draw ``n`` segmentations per image with ``network.sample``. Options: :class:`SamplingInferer`."""

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return (B, N, K, *S) class probabilities for images (B, C, *S)."""
        with cpu_autocast(inputs.device, self.autocast):
            return self._sample(inputs, network)

    def _sample(self, inputs: Tensor, network: Any) -> Tensor:
        image = plain(inputs)
        if self.seed is None:
            return self._draw(image, network)
        with own_randomness(image):
            if self.window is None:  # the noise image by image, the network on all of them
                noise = [self._seeded(row, self._noise, row, network) for row in image.split(1)]
                return network.sample(image, self.n, tuple(map(torch.cat, zip(*noise))))
            return torch.cat([self._seeded(row, self._draw, row, network) for row in image.split(1)])

    def _seeded(self, row: Tensor, action: Callable[..., Any], *args: Any) -> Any:
        torch.manual_seed(image_seed(row, self.seed or 0))
        return action(*args)

    def _noise(self, image: Tensor, network: Any) -> tuple[Tensor, ...]:
        """Return the noise that ``network.stream`` would draw for this image alone."""
        parts = [network.draw_noise(image, m) for m in network.chunks(image, self.n)]
        return tuple(torch.cat(part, dim=1) for part in zip(*parts))

    def _draw(self, image: Tensor, network: Any) -> Tensor:
        if self.window is None:
            return network.sample(image, self.n)
        draws = windowed_draws(network, image, self.n, window=self.window, overlap=self.overlap)
        return torch.cat(list(draws), dim=1)


class CentreDrawInferer(DrawInferer):
    """Draw the centre of each image with background around it, where a model knows smaller windows than the masks are of.

    Args:
        n: number of draws N.
        size: of the centre.
        options: :class:`SamplingInferer`.

    Raises:
        ValueError: for an image that is smaller than its centre.
    """

    def __init__(self, n: int = 16, *, size: Sequence[int], **options: Any) -> None:
        super().__init__(n, **options)
        self.size = tuple(size)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return (B, N, K, *S) class probabilities for images (B, C, *S)."""
        whole = inputs.shape[2:]
        if len(whole) != len(self.size) or any(s < c for s, c in zip(whole, self.size, strict=True)):
            raise ValueError(
                f"images are of {tuple(whole)}, smaller than the centre of {self.size}: choose a smaller one."
            )
        centre: Any = (
            ...,
            *(slice(s // 2 - c // 2, s // 2 - c // 2 + c) for s, c in zip(whole, self.size, strict=True)),
        )
        drawn = super().__call__(plain(inputs)[centre], network, *args, **kwargs)
        draws = drawn.new_zeros((*drawn.shape[:3], *whole))
        draws[:, :, 0] = 1
        draws[centre] = drawn
        return draws


class WeightedDrawInferer(SamplingInferer):
    """Draw ``n`` segmentations per image with ``network.weighted_draws``, for methods whose draws are not equally likely.

    Options: :class:`SamplingInferer`, of which windows are refused.
    """

    def __init__(self, n: int = 16, *, window: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(n, **options)
        if window is not None:
            raise ValueError(
                f"weighted draws are made of whole images, not by windows of {list(window)}: leave window out."
            )

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> MetaTensor:
        """Return (B, N, K, *S) class probabilities for images (B, C, *S), with ``meta["weights"]`` (B, N)."""
        image = plain(inputs)
        with cpu_autocast(image.device, self.autocast), own_randomness(image):
            drawn = []
            for row in image.split(1):
                if self.seed is not None:
                    torch.manual_seed(image_seed(row, self.seed))
                drawn.append(network.weighted_draws(row, self.n))
        draws, weights = map(torch.cat, zip(*drawn, strict=True))
        found = MetaTensor(draws, meta={"weights": weights})
        found.is_batch = True  # its meta data are decollated with it
        return found


def plain(image: Tensor) -> Tensor:
    """Return the tensor without MONAI's metadata, which cost at every operation."""
    return image.as_tensor() if hasattr(image, "as_tensor") else image


def image_seed(image: Tensor, seed: int) -> int:
    """Return a seed that is the image's own."""
    return zlib.crc32(image.cpu().numpy().tobytes(), seed)


def own_randomness(image: Tensor) -> AbstractContextManager:
    """Return a context after which the global random states, the one of the image's device too, are as before."""
    return torch.random.fork_rng([image.device] if image.device.type == "cuda" else [])
