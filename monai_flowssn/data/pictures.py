"""Pictures (PNG, JPEG, TIFF, GIF, BMP, PPM): the one place where they are decoded, and resized.

The rules, for images and masks of all data sets:

- **Orientation**: the EXIF orientation is applied, so a picture is read as viewers show it, and as its mask was drawn.
- **Bit depth**: values stay what they are, 0..255 or, of 16 bits, 0..65535, and floats. Where a data set promises 0..255,
  `to_bytes` divides those of 16 bits by 257. Colours of 16 bits, of which Pillow drops half, are refused.
- **Palette**: a palette of greys stands for its greys. Of a colour palette an image has the colours, and a mask the indices:
  they are class ids.
- **Black and white**: 0 and 255 in an image, 0 and 1 in a mask.
- **Channels**: images are grey (1) or RGB (3 channels); transparency is left out of an image. A mask has one channel, or equal
  ones, and no transparency, in which a drawing could hide.
- **One picture a file**: several pages or frames are refused; volumes belong into NIfTI or NRRD, which know where they lie.
"""

from __future__ import annotations

import gzip
import re
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

__all__ = ["SUFFIXES", "open_mask", "read_picture", "read_picture_mask", "resize_image", "resize_mask", "to_bytes"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".webp")
LOSS = 32  # by which the channels of a grey JPEG may differ
SOLID = 7  # pixels: a square of so many in-between values is an area of its own, and not a soft edge


def read_picture(path: str | Path, *, channels: int | None = None) -> np.ndarray:
    """Decode an image by the rules above.

    Args:
        path: the file; it may be gzipped.
        channels: 1 for grey (colours by their luminance, ITU-R 601), 3 for RGB, None for what the file has.

    Returns:
        (C, x, y) uint8, uint16, int32 or float32.

    Raises:
        ValueError: if the file is missing, does not decode, or the rules refuse it.
    """
    picture = _open(path)
    deep = picture.mode.startswith(("I", "F"))
    if picture.mode == "P" and _greys(picture) is not None:
        picture = picture.convert("L")
    elif not deep and picture.mode not in ("1", "L", "LA", "La"):
        picture = picture.convert("RGB")
    elif not deep:
        picture = picture.convert("L")
    if channels == 1 and picture.mode == "RGB":
        picture = picture.convert("L")
    array = np.atleast_3d(_array(picture)).T.copy()
    return np.repeat(array, 3, axis=0) if channels == 3 and len(array) == 1 else array


def read_picture_mask(path: str | Path) -> np.ndarray:
    """Decode the mask of one rater by the rules above.

    Returns:
        (x, y) uint8, uint16, int32 or float32: class ids, or what stands for them.

    Raises:
        ValueError: if the file is missing, does not decode, or the rules refuse it.
    """
    picture = _open(path)
    if picture.mode == "1":
        return np.asarray(picture).T.astype(np.uint8)
    if picture.mode == "P":
        greys = _greys(picture)
        return (np.asarray(picture) if greys is None else greys[np.asarray(picture)]).T.copy()
    array = np.atleast_3d(_array(picture))
    if picture.mode in ("LA", "RGBA"):
        if (array[..., -1] != array[0, 0, -1]).any():
            raise ValueError(
                f"{path} has a transparency that differs from pixel to pixel; which of it is the mask cannot be told: save class "
                "ids as one grey channel."
            )
        array = array[..., :-1]
    if picture.format == "JPEG" and picture.mode == "RGB" and np.ptp(array, axis=-1).max() <= LOSS:
        return np.asarray(picture.convert("L")).T.copy()
    if picture.mode == "CMYK" or (array != array[..., :1]).any():
        raise ValueError(
            f"{path} is coloured; save class ids as one grey channel, or as a palette of one colour a class."
        )
    return array[..., 0].T.copy()


def to_bytes(image: np.ndarray, path: str | Path) -> np.ndarray:
    """Return an image (C, x, y) in 0..255: uint8 as it is, 16 bits divided by 257, as float32."""
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise ValueError(f"{path} is a picture of {image.dtype}, whose range nothing tells; save it with 8 or 16 bits.")
    return image.astype(np.float32) / np.float32(257)


def _open(path: str | Path) -> Image.Image:
    path = Path(path)
    try:
        source = BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path
        with Image.open(source) as picture:
            frames, raw = getattr(picture, "n_frames", 1), str([tile[3] for tile in picture.tile])
            picture.load()
            decoded = ImageOps.exif_transpose(picture)
            decoded.format = picture.format
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; unpack the archive again.") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, EOFError, zlib.error, struct.error ...
        raise ValueError(f"{path} does not decode ({error}); replace this file with a good copy.") from error
    if frames > 1:
        raise ValueError(f"{path} holds {frames} pictures; save one a file, and volumes as NIfTI or NRRD.")
    if re.search(";16[BLN]", raw) and decoded.mode in ("RGB", "RGBA", "LA", "CMYK"):
        raise ValueError(
            f"{path} has channels of 16 bits, which are not read in full; save 8 bits, or one grey channel of 16."
        )
    return decoded


def _array(picture: Image.Image) -> np.ndarray:
    if picture.mode == "1":
        picture = picture.convert("L")
    array = np.asarray(picture)
    return array.astype(array.dtype.newbyteorder("="))  # PyTorch knows no other


def _greys(picture: Image.Image) -> np.ndarray | None:
    """Return the grey (256,) uint8 that each index of a palette stands for, None if it has colours."""
    colours = np.asarray(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    if (colours != colours[:, :1]).any():
        return None
    greys = np.zeros(256, np.uint8)
    greys[: len(colours)] = colours[:, 0]
    return greys


def open_mask(path: Path, *, like: np.ndarray) -> np.ndarray:
    """Decode a mask of two values, background 0 and foreground 255 (or 1).

    Edges may be soft, as JPEG and antialiased masks have them. Areas of another value are refused: they are a further
    class, and which side of a threshold it would fall on is not for a loader to guess.

    Args:
        path: the file.
        like: the image (C, x, y) that the mask belongs to, which must have the same size.

    Returns:
        (x, y) uint8 of zeros and ones.
    """
    mask = read_picture_mask(path)
    if mask.shape != like.shape[1:]:
        raise ValueError(f"{path} is {mask.shape}, its image {like.shape[1:]} pixels; both need the same size.")
    if mask.dtype == np.uint16 and mask.max() > 255:
        mask = (mask / 257).round().astype(np.uint8)
    values, counts = np.unique(mask, return_counts=True)
    top = values[-1]
    between = (mask > 63) & (mask < 192)
    if values[0] < 0 or top > 255 or 1 < top < 192 or (between.any() and _has_areas(between)):
        found = values[counts.argsort()[::-1][:3]].tolist()
        raise ValueError(
            f"{path} has areas that are neither background (0) nor foreground (255 or 1); its most frequent values are "
            f"{found}. Save a mask of two values for every structure."
        )
    return (mask > (0 if top == 1 else 127)).astype(np.uint8)


def _has_areas(between: np.ndarray) -> bool:
    return bool(ndimage.minimum_filter(between, SOLID, mode="constant").any())


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image (C, x, y) to (x, y) pixels, antialiased, channel by channel; returns it in its own type."""
    planes = [Image.fromarray(plane.T).resize(size, Image.Resampling.BICUBIC) for plane in image]
    return np.stack([np.asarray(plane).T for plane in planes])


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (x, y) of zeros and ones to (x, y) pixels.

    A pixel is foreground where at least half of its area was, so that shapes keep their area. To keep only the pixels
    that are wholly foreground, as rounding soft edges down to integers does, peels half a pixel off every shape.
    """
    grey = Image.fromarray((mask * np.uint8(255)).T)
    return (np.asarray(grey.resize(size, Image.Resampling.BOX)) >= 127).T.astype(np.uint8)
