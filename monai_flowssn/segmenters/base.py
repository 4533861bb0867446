"""The one interface: a stochastic segmenter is a module that models p(mask | image)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from monai_flowssn.annotations import check_classes, check_masks
from monai_flowssn.kernel_score import kernel_score

__all__ = ["StochasticSegmenter", "repeat_rows"]


class StochasticSegmenter(nn.Module, ABC):
    """A model of p(mask | image).

    A method states how it learns (``objective``), what its randomness is (``draw_noise``), what it computes once per image
    (``encode``) and what it computes per draw (``decode``). Everything else is shared: ``sample`` runs the expensive image pass
    once and decodes in chunks, so that its memory does not grow with the number of draws beyond the output.

    Randomness is an explicit input: the same noise gives the same draws.
    """

    #: Pixels decoded at once, over batch and draws, on a GPU 16 times as many; bounds the memory of ``sample`` and keeps its
    #: work near the cache.
    pixels_at_once: int = 2**19
    #: Name of the network that a draw evaluates at every step, for methods that draw in steps.
    step_network: str | None = None
    #: Whether draws have gradients, which :meth:`score` needs.
    differentiable: bool = True

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        check_classes(num_classes)
        self.num_classes = num_classes

    @abstractmethod
    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Compute what :meth:`loss` returns, of images (B, C, *S) and masks (B, R, *S) that are checked.

        The masks are integers, and some rater annotated every case.
        """

    def loss(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Check the masks, and compute the objective.

        Args:
            image: (B, C, *S).
            masks: (B, R, *S) integer class ids, -1 everywhere where a rater did not annotate the case.

        Returns:
            Scalars; ``"loss"`` is to be minimised, the others are for the log.

        Raises:
            ValueError: if masks are soft, hold ids that are no class, or do not fit the image (`annotations.check_masks`).
        """
        return self.objective(image, check_masks(masks, image, self.num_classes))

    @abstractmethod
    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return the randomness of ``n`` draws for image (B, C, *S): tensors (B, n, ...)."""

    @abstractmethod
    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return what all draws of image (B, C, *S) share: tensors (B, ...)."""

    @abstractmethod
    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        """Return one draw (B, K, *S), probabilities, for each row of ``code`` and ``noise``: tensors (B, ...)."""

    def stream(self, image: Tensor, n: int, noise: tuple[Tensor, ...] | None = None) -> Iterator[Tensor]:
        """Draw segmentations, a chunk at a time, for those who need not hold all of them.

        Args:
            image: (B, C, *S).
            n: number of draws N.
            noise: what ``draw_noise(image, n)`` returns; drawn afresh, chunk by chunk, if not given.

        Yields:
            (B, M, K, *S) class probabilities, summing to 1 over K, of N draws in all.

        Raises:
            ValueError: if ``n`` is below 1 or the noise is for another number of draws.
        """
        if n < 1:
            raise ValueError(f"n is {n}; at least one draw is needed: pass n >= 1.")
        if noise is not None and any(part.shape[:2] != (len(image), n) for part in noise):
            shapes = [tuple(part.shape) for part in noise]
            raise ValueError(
                f"noise of shapes {shapes}; each must begin with (B, N) = ({len(image)}, {n}): use draw_noise."
            )
        code, start = self.encode(image), 0
        for m in self.chunks(image, n):
            part = self.draw_noise(image, m) if noise is None else tuple(z[:, start : start + m] for z in noise)
            rows = tuple(repeat_rows(c, m) for c in code)
            yield self.decode(rows, tuple(z.flatten(0, 1) for z in part)).unflatten(0, (len(image), -1))
            start += m

    def chunks(self, image: Tensor, n: int) -> list[int]:
        """Return how many of ``n`` draws of image (B, C, *S) are computed at once, in their order."""
        pixels = self.pixels_at_once * (16 if image.is_cuda else 1)  # what fills a GPU overflows a cache
        most = max(1, pixels // (len(image) * image[0, 0].numel()))
        chunk = math.ceil(n / math.ceil(n / most))  # as equal as can be: no small rest, and one shape to compile
        return [min(chunk, n - start) for start in range(0, n, chunk)]

    @torch.no_grad()
    def sample(self, image: Tensor, n: int, noise: tuple[Tensor, ...] | None = None) -> Tensor:
        """Return all draws of :meth:`stream` (B, N, K, *S), float32; without gradients, which :meth:`stream` has."""
        draws = image.new_empty(len(image), max(n, 0), self.num_classes, *image.shape[2:], dtype=torch.float32)
        start = 0
        for part in self.stream(image, n, noise):
            draws[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        return draws

    def score(self, image: Tensor, masks: Tensor, n: int) -> dict[str, Tensor]:
        """Compute the kernel score of n fresh draws, with gradients; see :func:`~monai_flowssn.kernel_score.kernel_score`.

        Args:
            image: (B, C, *S).
            masks: (B, R, *S) integer class ids, -1 everywhere where a rater did not annotate the case.
            n: draws per image, at least 2.

        Raises:
            ValueError: if this method's draws have no gradient.
        """
        if not self.differentiable:
            raise ValueError(
                f"draws of {type(self).__name__} are sampled classes, which have no gradient to train on: pass finish 0."
            )
        return kernel_score(torch.cat(list(self.stream(image, n)), dim=1), masks)

    def forward(
        self, image: Tensor, masks: Tensor | None = None, *, score_draws: int | None = None
    ) -> dict[str, Tensor] | Tensor:
        """Return what is asked for, so that wrappers of modules work.

        Args:
            image: (B, C, *S).
            masks: (B, R, *S) for the loss terms, None for one draw (B, K, *S).
            score_draws: number of draws for the terms of :meth:`score` instead of those of :meth:`loss`.
        """
        if masks is None:
            return self.sample(image, 1).squeeze(1)
        return self.loss(image, masks) if score_draws is None else self.score(image, masks, score_draws)


def repeat_rows(code: Tensor, n: int) -> Tensor:
    """Repeat every row n times: (B, ...) -> (B * n, ...), the copies of a row in succession."""
    return code if n == 1 else code[:, None].expand(-1, n, *code.shape[1:]).flatten(0, 1)
