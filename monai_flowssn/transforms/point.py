"""A window around a point that a person chose."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import TraceKeys, is_scalar

from monai_flowssn.data.cases import case_title
from monai_flowssn.data.geometry import whole_affine
from monai_flowssn.transforms.crop import CropOnRatersd

__all__ = ["CropOnPointd", "LocatePointd", "seen_window", "voxel_of"]


class LocatePointd(Transform):
    """Check the point of a case, and find its place in mm, so that it stays where it is when voxels change.

    It belongs right after the loading. A case without a point, or with None, passes.

    Args:
        allowed: whether the model takes one; one that sees whole images, resized, does not.
    """

    def __init__(self, *, allowed: bool = True) -> None:
        self.allowed = allowed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with ``point``, indices into the image (C, *S) as the file counts them, as a place in mm.

        Raises:
            ValueError: if they are no whole numbers, of another number of axes than the image, or outside of it.
        """
        item = dict(data)
        point = item.pop("point", None)
        if point is None:
            return item
        name, size = case_title(item), tuple(item["image"].shape[1:])
        if not self.allowed:
            raise ValueError(f"{name} has the point {point}, but this model sees whole images: leave the point out.")
        given = list(point) if isinstance(point, (list, tuple, np.ndarray, torch.Tensor)) else []
        whole = [int(v) for v in given if is_scalar(v) and not isinstance(v, (bool, str)) and float(v).is_integer()]
        if (
            len(given) == len(size) + 1 == len(whole) and whole[-1] == 0
        ):  # viewers show a plane as a volume of one slice
            given, whole = given[:-1], whole[:-1]
        if not given or len(whole) != len(given) or len(given) != len(size):
            raise ValueError(
                f"{name} has the point {point!r}; it is {len(size)} whole numbers, the voxel indices of the file, such as "
                f"{[s // 2 for s in size]}."
            )
        if not all(0 <= v < s for v, s in zip(whole, size)):
            raise ValueError(
                f"{name} has the point {whole}, outside of its image of {list(size)}; indices run from 0 to "
                f"{[s - 1 for s in size]}."
            )
        affine, place = whole_affine(item["image"].affine), np.zeros(3)
        place[: len(whole)] = whole
        item["place"], item["file_affine"] = affine[:3, :3] @ place + affine[:3, 3], affine
        return item


class CropOnPointd(CropOnRatersd):
    """Crop the window around the place of :class:`LocatePointd`; a case without one stays whole.

    Near an edge the window is moved inside. Images that are smaller are padded by their edges.

    Args:
        keys: items (C, *S) to crop alike.
        spatial_size: of the window; axes that it does not have, such as the third of a volume for a 2-D network, stay whole.
    """

    def __init__(self, keys: KeysCollection, *, spatial_size: Sequence[int]) -> None:
        super().__init__(keys, spatial_size=spatial_size, label_key=None)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its window, or as it came."""
        return super().__call__(data) if "place" in data else dict(data)

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the window back, where one was cut out."""
        item = dict(data)
        history = item[next(self.key_iterator(item))].applied_operations
        cut = history and history[-1]["id"] in (id(self.crop), TraceKeys.NONE) and history[-1]["class"] == "Crop"
        return super().inverse(item) if cut else item

    def first_corner(self, item: Mapping[Hashable, Any], like: MetaTensor, window: Sequence[int]) -> list[int]:
        starts = (voxel - w // 2 for voxel, w in zip(voxel_of(item["place"], like), window))
        return [min(max(start, 0), s - w) for start, w, s in zip(starts, window, like.shape[1:])]


def voxel_of(place: np.ndarray | torch.Tensor, image: MetaTensor) -> list[int]:
    """Return the indices of a place in mm (3,) in an image (C, *S), the nearest voxel of each axis."""
    affine = whole_affine(image.affine)
    centre = np.linalg.solve(affine[:3, :3], np.asarray(place) - affine[:3, 3])
    return [round(float(c)) for c in centre[: image.ndim - 1]]


def seen_window(image: MetaTensor, file_affine: np.ndarray) -> list[list[int]]:
    """Return the voxels of the file that an image (C, *S) cut out of it covers: first and last index along each axis.

    Args:
        image: with its own affine.
        file_affine: of the file.
    """
    affine, axes = whole_affine(image.affine), image.ndim - 1
    ends = np.zeros((3, 2))
    ends[:axes, 0], ends[:axes, 1] = -0.5, np.array(image.shape[1:]) - 0.5
    corners = np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3]
    inside = (corners - file_affine[:3, 3]) @ np.linalg.inv(file_affine[:3, :3]).T
    low, high = inside.min(axis=0)[:axes], inside.max(axis=0)[:axes]
    return [[math.floor(v + 0.5 + 1e-3) for v in low], [math.ceil(v - 0.5 - 1e-3) for v in high]]
