"""Simulated chest CT around a nodule, for data sets whose masks are real but whose CT is not at hand.

Nothing here is a measured image. The scene is described in three dimensions and a slice is a plane through it, so the
slices of one nodule cohere.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from monai_flowssn.data.embedded.simulated_lung import LUNG, SOFT, Body, Tubes, Waves, grow_rays, grow_vessels
from monai_flowssn.data.splits import stable_hash

__all__ = ["nodule_density", "simulate_ct"]

REACH = 4.0  # mm: half the widest edge of a nodule


def simulate_ct(
    name: str, masks: np.ndarray, planes: np.ndarray, *, spacing: float, thickness: float, ratings: Mapping[str, float]
) -> np.ndarray:
    """Simulate the CT of a nodule: the masks may be real, the CT is not.

    The radiologists' mean ratings set the look: subtlety the contrast, texture the density from ground glass to solid,
    margin the blur of the edge, spiculation the rays, calcification the brightness.

    Args:
        name: name of the nodule; the same name gives the same scene in every process.
        masks: (R, Z, H, W), one volume per radiologist; the middle of the patch is the middle of the scene.
        planes: positions (Z,) of the slices in mm, ascending.
        spacing: in-plane pixel size in mm.
        thickness: slice thickness in mm; thin slices are noisier.
        ratings: mean ratings, as in `contours.RATINGS`.

    Returns:
        Hounsfield units (Z, H, W) float32.
    """
    rng = np.random.default_rng(stable_hash(name))
    y, x = ((np.arange(size) - (size - 1) / 2) * spacing for size in masks.shape[2:])
    radius = spacing * np.sqrt(masks.any((0, 1)).sum() / np.pi)
    body, parenchyma = Body.draw(rng, radius), Waves.draw(rng, 32, shortest=4, longest=60)
    edge, tissue = (Waves.draw(rng, 16, shortest=low, longest=high) for low, high in ((4, 15), (5, 40)))
    vessels, rays = grow_vessels(rng, body.hilum), grow_rays(rng, radius, ratings["spiculation"])
    tubes = Tubes(np.concatenate([vessels.centres, rays.centres]), np.concatenate([vessels.radii, rays.radii]))
    focus, grain = rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.8)
    noise = np.interp(thickness, [0.6, 3.0], [45, 20]) * rng.uniform(0.6, 1.4)
    heights = planes - planes.mean()
    wobble = np.stack([edge(x, y, z) for z in heights])
    density = nodule_density(masks, planes, spacing=spacing, margin=ratings["margin"], wobble=wobble)
    slices = []
    for z, plane, shape in zip(heights, planes, density):
        uneven = parenchyma(x, y, z)
        nodule = attenuation(shape, uneven, ratings)
        air = LUNG + 25 * uneven
        inside = air + (SOFT - air) * np.maximum(nodule, tubes(x, y, z, thickness=thickness))
        image = ndimage.gaussian_filter(body(inside, tissue(x, y, z), x, y, z), focus)
        slices.append(image + noise * _grain(f"{name}/{plane:.2f}", image.shape, grain))
    return np.stack(slices).astype(np.float32)


def nodule_density(
    masks: np.ndarray, planes: np.ndarray, *, spacing: float, margin: float, wobble: np.ndarray | float = 0.0
) -> np.ndarray:
    r"""How much of the nodule is at every point, from 0 to 1, as the radiologists' average view and nobody's own.

    It is a smooth step of :math:`\mu / w` where :math:`\mu` is the mean of the masks' signed distances in mm and
    :math:`w` grows with their standard deviation and with a poor margin: where the radiologists disagree the edge is
    soft, and no one's outline shows as a step. Slices that few of them marked, at the ends of the nodule, fade.

    Args:
        masks: (R, Z, H, W), one volume per radiologist.
        planes: positions (Z,) of the slices in mm, ascending.
        spacing: in-plane pixel size in mm.
        margin: mean rating from 1 (poor) to 5 (sharp).
        wobble: smooth field (Z, H, W) of unit variance that moves the edge, so that it is not quite the mean outline.

    Returns:
        Density (Z, H, W).
    """
    gap = float(np.median(np.diff(planes))) if len(planes) > 1 else 2 * spacing
    rows, columns = (np.flatnonzero(masks.any(axes)) for axes in ((0, 1, 3), (0, 1, 2)))
    border = int(np.ceil(1.5 * REACH / spacing))
    box = slice(None), *(slice(max(ends[0] - border, 0), ends[-1] + border + 1) for ends in (rows, columns))
    distance = np.stack([_signed_distance(mask[box], (gap, spacing, spacing)) for mask in masks if mask.any()])
    smooth = (0.0, 0.7, 0.7)
    mean, spread = (ndimage.gaussian_filter(field, smooth) for field in (distance.mean(0), distance.std(0)))
    width = np.minimum(np.interp(margin, [1, 5], [2.2, 0.7]) + 0.5 * spread, REACH)
    moved = mean + 0.3 * np.broadcast_to(wobble, masks.shape[1:])[box]
    step = np.clip(0.5 + moved / (2 * width), 0, 1)
    marked = ndimage.gaussian_filter1d(
        masks.any((2, 3)).mean(0), 0.7, mode="constant" if len(planes) > 2 else "nearest"
    )
    density = np.zeros(masks.shape[1:])
    density[box] = step * step * (3 - 2 * step) * np.minimum(0.3 + 0.8 * marked, 1)[:, None, None]
    return density


def attenuation(density: np.ndarray, uneven: np.ndarray, ratings: Mapping[str, float]) -> np.ndarray:
    """Brightness (H, W) of the nodule: 0 is lung, 1 soft tissue, more is calcified."""
    solid = np.interp(ratings["texture"], [1, 3, 5], [0.3, 0.5, 0.95])
    visible = np.interp(ratings["subtlety"], [1, 5], [0.55, 1.0])
    core = np.clip(2 * density - 1, 0, 1) * max(0.0, 0.8 - solid) * np.interp(ratings["texture"], [1, 3], [0, 1])
    lime = 0.12 * max(0.0, 6 - ratings["calcification"])
    return visible * ((solid + lime) * density * (1 + 0.12 * uneven) + core)


def _signed_distance(mask: np.ndarray, sampling: tuple[float, float, float]) -> np.ndarray:
    """Distance in mm to the surface of a mask (Z, H, W), positive inside; the mask ends beyond the first and last slice."""
    padded = np.pad(mask, ((1, 1), (0, 0), (0, 0)))
    inside, outside = (ndimage.distance_transform_edt(part, sampling) for part in (padded, 1 - padded))
    return np.clip(inside - outside, -REACH * 1.5, REACH * 1.5)[1:-1]


def _grain(key: str, shape: tuple[int, ...], blur: float) -> np.ndarray:
    """Noise (H, W) of unit variance, correlated as a reconstruction kernel leaves it; its own for every slice."""
    noise = ndimage.gaussian_filter(np.random.default_rng(stable_hash(key)).standard_normal(shape), blur)
    return noise / noise.std()
