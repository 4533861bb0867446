"""The Retinal Vessel data set: colour fundus images of DRIVE, STARE and CHASE_DB1 with two observers each.

References: Staal et al. 2004 (DRIVE), Hoover et al. 2000 (STARE), Fraz et al. 2012 (CHASE_DB1); their union and the
height of 512 as in Selvan et al., "Uncertainty quantification in medical image segmentation with normalizing flows",
2020, arXiv 2006.02683 (cFlow Net).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from monai_flowssn.data.cases import Case, check_cases, make_case, pick_evenly
from monai_flowssn.data.pictures import open_mask, read_picture, resize_image, resize_mask, to_bytes
from monai_flowssn.data.splits import Split

__all__ = ["field_of_view", "retinal_vessel"]


class _Files(NamedTuple):
    patient: str
    case: str
    image: Path
    observers: tuple[Path, Path]
    fov: Path | None = None


def retinal_vessel(
    root: str | Path,
    split: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
    height: int = 512,
) -> list[Case]:
    """List the cases of one split as in-memory items, resized to one height (widths differ).

    Folders under `root`, as the archives unpack: DRIVE/test/{images,1st_manual,2nd_manual,mask} (only DRIVE's test part
    has a second observer), STARE/{stare-images or images,labels-ah,labels-vk} (.ppm or .ppm.gz), and CHASE_DB1/
    Image_01L.jpg, _1stHO.png, _2ndHO.png. All that is there is used: at most 20 + 20 + 28 = 68 images, the size of the
    published set; archives with fewer images give fewer, so compare counts before comparing numbers.

    A mask pixel of the smaller image is vessel where at least half of its area was. Vessels are one or two pixels wide;
    on these three sets nearest-neighbour sampling cuts them into 20 to 50 times as many pieces, this into 1 (CHASE: 10),
    at 1.05 to 1.09 times the vessel area.

    Has met the real archives of all three, in part (16 + 16 + 22 images).

    Args:
        root: folder with at least one of the three data sets.
        split: "train", "val" or "test", with its share of each data set; both eyes of a CHASE child stay together.
        limit: at most so many evenly spaced cases, for quick runs.
        seed: of the split or folds.
        folds: number of folds of a cross-validation, each dealt from all three sets; None for a single split; see
            `splits.Split`.
        fold: the fold to test on.
        height: of the resized images in pixels; the aspect is kept.

    Returns:
        Items with image (3, *S) uint8, label (2, *S) uint8, fov (1, *S) uint8 (DRIVE's own field of view, else
        `field_of_view`), patient, and case.
    """
    root, part = Path(root).expanduser(), Split(split, folds=folds, fold=fold, seed=seed)
    if height < 1:
        raise ValueError(f"Got height={height}; use a positive number of pixels.")
    files = [*_drive(root / "DRIVE" / "test"), *_stare(root / "STARE"), *_chase(root / "CHASE_DB1")]
    found = {each.case.split("-")[0] for each in files}
    if not files:
        raise ValueError(f"{root} has no images of DRIVE, STARE or CHASE_DB1; unpack at least one of them there.")
    if len(found) < 3:
        warnings.warn(f"{root} has only {sorted(found)} of DRIVE, STARE and CHASE_DB1.", stacklevel=2)
    kept: set[str] = set()
    for name in found:  # each set by itself, so that every split has images of all
        kept |= part.patients([each.patient for each in files if each.case.startswith(name)])
    chosen = pick_evenly([each for each in files if each.patient in kept], limit)
    return check_cases([_read(each, height) for each in chosen], source=root, split=split)


def _drive(folder: Path) -> Iterator[_Files]:
    for path in sorted((folder / "images").glob("*_test.tif")):
        number = path.name.split("_")[0]
        observers = (folder / f"1st_manual/{number}_manual1.gif", folder / f"2nd_manual/{number}_manual2.gif")
        yield _Files(f"DRIVE-{number}", f"DRIVE-{number}", path, observers, folder / f"mask/{number}_test_mask.gif")


def _stare(folder: Path) -> Iterator[_Files]:
    for path in sorted([*folder.glob("*images/*.ppm"), *folder.glob("*images/*.ppm.gz")]):
        name, suffix = path.name.split(".", 1)
        observers = (folder / f"labels-ah/{name}.ah.{suffix}", folder / f"labels-vk/{name}.vk.{suffix}")
        yield _Files(f"STARE-{name}", f"STARE-{name}", path, observers)


def _chase(folder: Path) -> Iterator[_Files]:
    for path in sorted(folder.glob("Image_*.jpg")):
        eye = path.stem.removeprefix("Image_")
        observers = (folder / f"{path.stem}_1stHO.png", folder / f"{path.stem}_2ndHO.png")
        yield _Files(f"CHASE-{eye.rstrip('LR')}", f"CHASE-{eye}", path, observers)


def _read(files: _Files, height: int) -> Case:
    image = to_bytes(read_picture(files.image, channels=3), files.image)  # (3, x, y)
    masks = [open_mask(path, like=image) for path in files.observers]
    fov = open_mask(files.fov, like=image) if files.fov else field_of_view(image)
    size = (max(1, round(image.shape[1] * height / image.shape[2])), height)
    return make_case(
        resize_image(image, size),
        np.stack([resize_mask(mask, size) for mask in masks]),
        fov=resize_mask(fov, size)[None],
        patient=files.patient,
        case=files.case,
    )


def field_of_view(image: np.ndarray) -> np.ndarray:
    """Find the lit disc of a fundus photograph: brighter than the dark corners, largest component, holes filled.

    The threshold lies 12 % of the way from the brightness of the corners to that of the centre. Against DRIVE's own
    masks the mean IoU is 0.99; in STARE and CHASE_DB1 at most 0.5 % of an image's vessel pixels fall outside.

    Args:
        image: (3, x, y).

    Returns:
        (x, y) uint8, 1 inside and 0 outside.
    """
    bright = ndimage.uniform_filter(image.max(axis=0).astype(np.float32), 5)
    columns, rows = bright.shape
    edge = max(1, rows // 20)
    corners = [bright[x, y] for y in (slice(edge), slice(-edge, None)) for x in (slice(edge), slice(-edge, None))]
    dark = np.median([np.median(corner) for corner in corners])
    lit = np.median(bright[columns // 4 : -(columns // 4) or None, rows // 4 : -(rows // 4) or None])
    parts, _ = ndimage.label(bright > dark + 0.12 * (lit - dark))
    sizes = np.bincount(parts.ravel())[1:]
    disc = parts == sizes.argmax() + 1 if sizes.size else np.ones_like(parts, dtype=bool)
    return ndimage.binary_fill_holes(disc).astype(np.uint8)
