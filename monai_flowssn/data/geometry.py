"""Where a pixel lies and how large it is: affines, compared and measured in mm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

__all__ = ["check_affine", "check_same_place", "element_size", "whole_affine"]

SHARE = 0.1  # of a pixel: how far two grids may be apart and still be one


def element_size(affine: torch.Tensor | np.ndarray, spatial_ndim: int) -> float:
    r"""Return the area of a pixel or the volume of a voxel, :math:`\sqrt{\det(A^T A)}` of the columns A of its axes.

    A slice has an affine of three axes too, whose third is the thickness and no part of an area.

    Args:
        affine: (4, 4) or (3, 3), from indices to mm.
        spatial_ndim: 2 for an area in mm^2, 3 for a volume in mm^3.

    Example:
        >>> round(element_size(np.diag([1.2, 1.2, 3, 1]), 2), 6)
        1.44
    """
    axes = np.asarray(affine, dtype=np.float64)[:-1, :spatial_ndim]
    triangle: np.ndarray = np.linalg.qr(axes, mode="r")  # type: ignore[assignment]  # in this mode it is one
    return float(np.abs(triangle.diagonal()).prod()) if np.isfinite(axes).all() else np.nan


def whole_affine(affine: torch.Tensor | np.ndarray) -> np.ndarray:
    """Return an affine (4, 4) float64: that of a plane (3, 3) gets a third axis, and so does one whose third is zero."""
    small = np.asarray(affine, dtype=np.float64)
    whole = np.eye(4)
    whole[: len(small) - 1, : len(small) - 1] = small[:-1, :-1]
    whole[: len(small) - 1, 3] = small[:-1, -1]
    if not whole[:3, 2].any():
        normal = np.cross(whole[:3, 0], whole[:3, 1])
        whole[:3, 2] = normal / (np.linalg.norm(normal) or 1)
    return whole


def check_affine(affine: np.ndarray, spatial_ndim: int, name: str) -> None:
    """Refuse an affine (4, 4) under which pixels have no size or no place."""
    if not np.isfinite(affine).all() or not element_size(affine, spatial_ndim) > 0:
        raise ValueError(
            f"{name} has the affine {np.asarray(affine).tolist()}, under which its pixels have no size; an affine must be finite "
            "and invertible: write the file again with the geometry of the scan."
        )


def check_same_place(affine: np.ndarray, other: np.ndarray, shape: Sequence[int], name: str) -> None:
    """Refuse two grids of one shape that lie apart, by the corner at which they are farthest apart.

    Args:
        affine: (4, 4) of what is checked.
        other: (4, 4) of what it must lie on.
        shape: (*S) of both.
        name: what is checked, and whose it is.

    Raises:
        ValueError: if a corner is off by more than a tenth of the smallest pixel edge.
    """
    corners = np.array([[*corner, *[0] * (3 - len(shape)), 1] for corner in product(*((0, n - 1) for n in shape))]).T
    away = np.linalg.norm((np.asarray(affine) @ corners - np.asarray(other) @ corners)[:3], axis=0).max()
    edges = np.linalg.norm(np.asarray(other)[:3, : len(shape)], axis=0)
    if away > SHARE * edges.min():
        raise ValueError(
            f"{name} lies elsewhere in space: a corner is {away:.4g} mm away (affine {np.round(affine, 4).tolist()}, that of the "
            f"image {np.round(other, 4).tolist()}); both must lie within {SHARE:g} of a pixel: resample it onto the image, or "
            "correct its header."
        )
