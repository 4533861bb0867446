"""Pictures and drawn masks brought to one size, for the data sets whose images are smaller or larger than a network's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from monai_flowssn.data.items import open_picture

__all__ = ["open_mask", "resize_image", "resize_mask"]

SOLID = 7  # pixels: a square of so many in-between values is an area of its own, and not a soft edge


def open_mask(path: Path, *, like: Image.Image) -> Image.Image:
    """Decode a mask of two values, background 0 and foreground 255 (or 1).

    Edges may be soft, as JPEG and antialiased masks have them. Areas of another value are refused: they are a further
    class, and which side of a threshold it would fall on is not for a loader to guess.

    Args:
        path: the file.
        like: the picture that the mask belongs to, which must have the same size.

    Returns:
        A picture of mode "L" with the values 0 and 255.
    """
    mask = open_picture(path).convert("L")
    if mask.size != like.size:
        raise ValueError(f"{path} is {mask.size}, its image {like.size} pixels; both need the same size.")
    counts = np.array(mask.histogram())
    top = int(counts.nonzero()[0][-1])
    if 1 < top < 192 or (counts[64:192].any() and _has_areas_between(np.asarray(mask))):
        found = counts.argsort()[::-1][: min(3, np.count_nonzero(counts))].tolist()
        raise ValueError(
            f"{path} has areas that are neither background (0) nor foreground (255 or 1); its most frequent values are "
            f"{found}. Save a mask of two values for every structure."
        )
    return mask.point([0, 255 if top == 1 else 0, *[0] * 126, *[255] * 128])


def _has_areas_between(values: np.ndarray) -> bool:
    between = (values > 63) & (values < 192)
    return bool(ndimage.minimum_filter(between, SOLID, mode="constant").any())


def resize_image(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize a grey or RGB picture to (x, y) pixels; returns (C, x, y) uint8."""
    array = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))  # antialiased, as all of Pillow's but NEAREST
    return np.atleast_3d(array).T.copy()


def resize_mask(mask: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask of 0 and 255 to (x, y) pixels; returns (x, y) uint8 of zeros and ones.

    A pixel is foreground where at least half of its area was, so that shapes keep their area. To keep only the pixels
    that are wholly foreground, as rounding soft edges down to integers does, peels half a pixel off every shape.
    """
    return (np.asarray(mask.resize(size, Image.Resampling.BOX)) >= 127).T.astype(np.uint8)
