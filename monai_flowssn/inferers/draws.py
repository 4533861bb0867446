"""How MONAI's engines call a stochastic segmenter."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from monai_flowssn.handlers.finishing import Finishing
from monai_flowssn.inferers.windows import windowed_draws

__all__ = ["DrawInferer", "LossInferer", "cpu_autocast"]


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
        finishing: where given, it says when training is on the kernel score, and of how many draws.
        autocast: whether to use bfloat16 where the CPU has it.
    """

    def __init__(self, finishing: Finishing | None = None, *, autocast: bool = True) -> None:
        super().__init__()
        self.finishing, self.autocast = finishing, autocast

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss terms of images (B, C, *S) and their masks (B, R, *S), which follow the network."""
        if self.finishing is not None and self.finishing.active:
            kwargs["score_draws"] = self.finishing.draws
        with cpu_autocast(inputs.device, self.autocast):
            return network(inputs, *args, **kwargs)


class SamplingInferer(Inferer):
    """What inferers that draw have in common.

    Args:
        n: number of draws N.
        seed: where given, the draws of an image are a function of this seed and the image, whatever batch or process it is in;
            the global random state is left as it was. The two inferers need not make the same draws of one seed.
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
                noise = [self._seeded(row, network.draw_noise, row, self.n) for row in image.split(1)]
                return network.sample(image, self.n, tuple(map(torch.cat, zip(*noise))))
            return torch.cat([self._seeded(row, self._draw, row, network) for row in image.split(1)])

    def _seeded(self, row: Tensor, action: Callable[..., Any], *args: Any) -> Any:
        torch.manual_seed(image_seed(row, self.seed or 0))
        return action(*args)

    def _draw(self, image: Tensor, network: Any) -> Tensor:
        if self.window is None:
            return network.sample(image, self.n)
        draws = windowed_draws(network, image, self.n, window=self.window, overlap=self.overlap, draws_at_once=self.n)
        return next(draws)


def plain(image: Tensor) -> Tensor:
    """Return the tensor without MONAI's metadata, which cost at every operation."""
    return image.as_tensor() if hasattr(image, "as_tensor") else image


def image_seed(image: Tensor, seed: int) -> int:
    """Return a seed that is the image's own."""
    return zlib.crc32(image.cpu().numpy().tobytes(), seed)


def own_randomness(image: Tensor) -> AbstractContextManager:
    """Return a context after which the global random states, the one of the image's device too, are as before."""
    return torch.random.fork_rng([image.device] if image.device.type == "cuda" else [])
