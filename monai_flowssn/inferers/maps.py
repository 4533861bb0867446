"""Draws that are reduced to their maps while they are made."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from monai_flowssn.files import label_maps
from monai_flowssn.inferers.draws import SamplingInferer, cpu_autocast, image_seed, own_randomness, plain
from monai_flowssn.inferers.windows import windowed_draws
from monai_flowssn.transforms.uncertainty import collect_draws

__all__ = ["MapInferer"]


class MapInferer(SamplingInferer):
    """Draw ``n`` segmentations per image and keep one byte per pixel of each, with the means over them.

    Memory beyond the output is that of one chunk of draws, and the draws of a large volume, in a batch of one, are kept in a file
    (:func:`~monai_flowssn.files.label_maps`), so that they need not fit into memory together. A network for 2-D images draws
    volumes slice by slice along the last axis, all slices with one noise: a draw stays one hypothesis as far as it can.

    Args:
        n: number of draws N.
        spatial_dims: of the network.
        options: the others of :class:`SamplingInferer`.

    Raises:
        ValueError: if ``n`` is below 1, or an image has other dimensions than the network, but for volumes by slices.
    """

    def __init__(self, n: int = 16, *, spatial_dims: int, **options: Any) -> None:
        super().__init__(n, **options)
        self.spatial_dims = spatial_dims

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return, for images (B, C, *S), what :func:`~monai_flowssn.transforms.collect_draws` does, stacked over B."""
        rows = plain(inputs).split(1)
        seeds = [int(torch.randint(2**31, ())) if self.seed is None else image_seed(row, self.seed) for row in rows]
        with cpu_autocast(inputs.device, self.autocast), own_randomness(inputs):
            cases = [self._case(row, network, seed) for row, seed in zip(rows, seeds)]
        if len(cases) == 1:  # without a copy, for volumes
            return {name: values[None] for name, values in cases[0].items()}
        return {name: torch.stack([case[name] for case in cases]) for name in cases[0]}

    def _case(self, image: Tensor, network: Any, seed: int) -> dict[str, Tensor]:
        dims = image.ndim - 2
        if dims == self.spatial_dims:
            return self._collect(image, network, seed, label_maps((self.n, *image.shape[2:])))
        if (dims, self.spatial_dims) != (3, 2):
            raise ValueError(
                f"the image (C, *S) is {tuple(image.shape[1:])}, the network has spatial_dims={self.spatial_dims}; only a 2-D "
                "network draws images of another dimension, volumes by their slices."
            )
        depth, plane = image.shape[-1], image.shape[2:-1]
        labels = label_maps((self.n, depth, *plane)).movedim(1, -1)  # a slice of a draw lies together in the file
        slices = [self._collect(image[..., z], network, seed, labels[..., z]) for z in range(depth)]
        means = {name: torch.stack([part[name] for part in slices], dim=-1) for name in ("mean", "expected_entropy")}
        return {"labels": labels, **means}

    def _collect(self, image: Tensor, network: Any, seed: int, labels: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        if self.window is None:
            chunks = network.stream(image, self.n)
        else:
            chunks = windowed_draws(network, image, self.n, window=self.window, overlap=self.overlap)
        return collect_draws(map(itemgetter(0), chunks), labels)  # which, unlike a loop, keeps no chunk
