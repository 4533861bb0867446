"""Maps back in the geometry of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, InvertibleTransform, Transform

from monai_flowssn.files import label_maps
from monai_flowssn.transforms.point import seen_window

__all__ = ["InvertDrawsd", "InvertMapsd"]


class InvertDrawsd(Transform):
    """MONAI's ``Invertd`` for label maps (N, *S), one at a time, so that those of a volume need not be in memory together.

    Args:
        transform: as of ``Invertd``.
        keys: key of the draws.
        orig_keys: the image that went through ``transform``, not inverted itself yet.
    """

    def __init__(self, transform: InvertibleTransform, *, keys: str = "draws", orig_keys: str = "image") -> None:
        self.keys, self.orig_keys = keys, orig_keys
        self.invert = Invertd(keys, transform, orig_keys, nearest_interp=True)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the case with its draws inverted, uint8.

        Args:
            data: a case with draws, MetaTensor (N, *S) that carries the operations of the image, and the image.
        """
        draws, inverted = data[self.keys], None
        for i, draw in enumerate(draws.split(1)):
            one = self.invert({self.keys: draw, self.orig_keys: data[self.orig_keys]})[self.keys]
            if inverted is None:
                inverted = MetaTensor(label_maps((len(draws), *one.shape[1:])), meta=one.meta)
            inverted.as_tensor()[i] = one[0].as_tensor().round().to(torch.uint8)
        return {**data, self.keys: inverted}


class InvertMapsd(Transform):
    """Put draws, maps and image of a case back into the geometry of its file; where nothing changed it, they stay as they are.

    Args:
        transform: the chain that the image went through.
    """

    def __init__(self, transform: Compose) -> None:
        # the image last: the others need its history
        maps = ["mean", "segmentation", "entropy", "expected_entropy", "mutual_information", "image"]
        nearest = [name == "segmentation" for name in maps]
        inverse = Invertd(maps, transform, orig_keys="image", nearest_interp=nearest)
        self.steps = [InvertDrawsd(transform), inverse]

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the case with its maps in the geometry of the file.

        Args:
            data: a case with the maps of :class:`~monai_flowssn.transforms.DrawsToMapsd`, and its image (C, *S).
        """
        item, image = dict(data), data["image"]
        if "file_affine" in item:  # of a window around a point
            item["window"] = seen_window(image, np.asarray(item["file_affine"]))
        if image.applied_operations:
            for step in self.steps:
                item = step(item)
        return item
