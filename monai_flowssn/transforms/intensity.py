"""Intensities from an image's own range."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["ScaleOwnRanged"]


class ScaleOwnRanged(MapTransform):
    """Scale the lowest and the highest intensity of each image to -1 and 1; for a 2-D network, those of each slice of a volume.

    MONAI's ``ScaleIntensityd`` knows no slices. What is the same everywhere becomes -1.

    Args:
        keys: images (C, *S); all channels together.
        spatial_dims: of the network, 2 or 3.

    Example:
        >>> ScaleOwnRanged("image", spatial_dims=2)({"image": torch.tensor([[[[0.0, 5.0], [2.0, 5.0]]]])})["image"]
        tensor([[[[-1., -1.],
                  [ 1., -1.]]]])
    """

    def __init__(self, keys: KeysCollection, *, spatial_dims: int) -> None:
        super().__init__(keys)
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its images in [-1, 1], float32."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key].float()
            axes = tuple(range(min(image.ndim, 1 + self.spatial_dims)))
            low, high = torch.amin(image, axes, keepdim=True), torch.amax(image, axes, keepdim=True)
            item[key] = 2 * (image - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny) - 1
        return item
