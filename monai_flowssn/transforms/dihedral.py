"""The symmetries of the square, as augmentation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

__all__ = ["RandDihedrald"]


class RandDihedrald(MapTransform, Randomizable):
    """Flip and turn by 90 degrees at random: one of the eight symmetries of the square, all equally likely.

    They act on the first two spatial axes, which are in-plane in MONAI's order; volumes (C, X, Y, Z) are also flipped
    along Z half of the time. Where the plane is not square, or its pixels are not, only the four symmetries that keep
    its shape are drawn. Affines follow, so geometry stays true.

    Args:
        keys: items (C, *S) to transform alike.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)
        self._draw = 0

    def randomize(self, data: Any = None) -> None:
        """Draw three flips and one transposition as the bits of one number."""
        self._draw = int(self.R.randint(16))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with all keys in the drawn pose."""
        item = dict(data)
        self.randomize()
        for key in self.key_iterator(item):
            item[key] = self._pose(item[key])
        return item

    def _pose(self, image: torch.Tensor) -> torch.Tensor:
        array = image.as_subclass(torch.Tensor)
        flips = tuple(axis for axis in range(1, array.ndim) if self._draw >> axis & 1)
        turn = bool(self._draw & 1) and array.shape[1] == array.shape[2] and _has_square_pixels(image)
        posed = array.flip(flips) if flips else array
        posed = posed.transpose(1, 2) if turn else posed
        if not isinstance(image, MetaTensor):
            return posed
        # the constructor of MetaTensor would take most of the time of this transform
        result = posed.as_subclass(MetaTensor).copy_meta_from(image)
        result.affine = image.affine @ _index_map(tuple(array.shape[1:]), flips, turn).to(image.affine)
        return result


def _has_square_pixels(image: torch.Tensor) -> bool:
    if not isinstance(image, MetaTensor):
        return True
    width, height = (sum(row[axis] ** 2 for row in image.affine.tolist()[:3]) for axis in (0, 1))
    return abs(width - height) <= 1e-3 * width


@lru_cache(maxsize=256)
def _index_map(shape: tuple[int, ...], flips: tuple[int, ...], turn: bool) -> torch.Tensor:
    """Return the (4, 4) matrix from voxel indices after the pose to those before it."""
    matrix = torch.eye(4, dtype=torch.float64)
    for axis in flips:
        matrix[axis - 1, axis - 1], matrix[axis - 1, 3] = -1, shape[axis - 1] - 1
    return matrix[:, [1, 0, 2, 3]] if turn else matrix
