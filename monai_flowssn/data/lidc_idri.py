"""LIDC-IDRI slices with the masks of four radiologists, in the three forms in which the field hands them on.

Reference: Armato et al., "The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI)",
Medical Physics 38, 2011.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from monai_flowssn.data.cases import Case, check_cases, make_case, pick_evenly, spacing_affine
from monai_flowssn.data.hdf5 import opened
from monai_flowssn.data.pictures import read_picture, read_picture_mask, to_bytes
from monai_flowssn.data.safe_pickle import load_arrays
from monai_flowssn.data.splits import SPLITS, Split

__all__ = ["lidc"]

HDF5, PICKLE = (".hdf5", ".h5"), (".pickle", ".pkl")
BLOCK = 512  # slices read at once (about), which bounds the memory beyond the result
logger = logging.getLogger(__name__)


def lidc(
    root: str | Path,
    split: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
) -> list[Case]:
    """List the cases of one split as in-memory items.

    `root` is one of

    - an HDF5 file in the layout of PHiSeg (Baumgartner et al., 2019, arXiv 1906.04045), or a folder that holds exactly
      one: groups train, val, test with images (n, H, W) uint8 or float in [-0.5, 0.5], labels (n, H, W, R), uids (n,),
      and optionally slice_ids (n,) and spacing (n,) in mm. The split is the file's own;
    - the pickle of Stefan Knegt's Probabilistic U-Net: name -> image (H, W) in [0, 1], masks, series_uid. It is read
      without running any code in it, and split by series, that is by patient but for a few patients with two scans;
    - a folder tree as exported by Kohl et al. (2019, arXiv 1905.13077): [<split>/]images/<patient>/<name>.png with
      [<split>/]gt/<patient>/<name>_l0.png to _l3.png (also flat, named <patient>_<name>.png, and with lesions for gt).
      Without train, val and test folders the patients are split here.

    Whatever the form, grey values are in 0..255: uint8 where the source has 8 bits, else float32. Floats of an HDF5 file are
    taken for [-0.5, 0.5] if any of the whole file is negative, else for [0, 1], and the log says which. With ``folds`` the
    source's own split gives way to a cross-validation over all patients, which needs all three groups or folders.

    The HDF5 form has met a file built from the real LIDC-IDRI; the pickle and the folder tree have met only files made
    in their layouts.

    Args:
        root: file or folder as above.
        split: "train", "val" or "test".
        limit: at most so many evenly spaced cases, for quick runs.
        seed: of the split, where the source brings none, and of the folds.
        folds: number of folds of a cross-validation, None for a single split; see `splits.Split`.
        fold: the fold to test on.

    Returns:
        Items with image (1, *S), label (R, *S) uint8 (int16 where a rater is -1), patient, and case.
    """
    root, part = Path(root).expanduser(), Split(split, folds=folds, fold=fold, seed=seed)
    if not root.exists():
        raise ValueError(f"{root} does not exist; give the HDF5 file, the pickle, or the folder of the LIDC data.")
    if root.is_dir() and any((root / name / "images").is_dir() for name in ("", *SPLITS)):
        return check_cases(_from_folders(root, part, limit), source=root, split=split)
    path = _only_file(root) if root.is_dir() else root
    if path.suffix in HDF5:
        return check_cases(_from_hdf5(path, part, limit), source=path, split=split)
    if path.suffix in PICKLE:
        return check_cases(_from_pickle(path, part, limit), source=path, split=split)
    raise ValueError(f"{path} is of unknown type; expected one of {HDF5 + PICKLE}, or a folder with images/ and gt/.")


def _only_file(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix in HDF5 + PICKLE)
    if len(files) != 1:
        raise ValueError(
            f"{folder} holds {len(files)} data files {[path.name for path in files]} and no images/ folder; "
            f"leave exactly one {HDF5 + PICKLE} in it, or name the file itself."
        )
    return files[0]


def _from_hdf5(path: Path, part: Split, limit: int | None) -> list[Case]:
    with opened(path) as file:
        for name in part.sources:
            _check_layout(file, path, name)
        if part.folds is None:
            _warn_of_leaks(file, path)
        uids = {name: [_text(uid) for uid in file[name]["uids"][:]] for name in part.sources}
        kept = part.patients(uids)
        picked = pick_evenly([(name, row) for name in uids for row, uid in enumerate(uids[name]) if uid in kept], limit)
        rows = {name: np.array([row for group, row in picked if group == name], int) for name in uids}
        return [item for name in uids for item in _from_group(file[name], rows[name], name, path)]


def _from_group(group: h5py.Group, rows: np.ndarray, split: str, path: Path) -> list[Case]:
    images = _read_images(group["images"], rows, path)
    labels = _read_rows(group["labels"], rows, np.uint8 if group["labels"].dtype.kind in "bu" else np.int16)
    uids = group["uids"][:][rows]
    spacings = group["spacing"][:][rows] if "spacing" in group else np.ones(len(rows))
    names = _case_names(group, split)
    return [
        make_case(image[None], label, patient=_text(uid), case=names[row], affine=spacing_affine(spacing, spacing))
        # tensors are cut, not arrays: all cases then share one storage, which worker processes share too
        for image, label, uid, row, spacing in zip(*map(torch.from_numpy, (images, labels)), uids, rows, spacings)
    ]


def _check_layout(file: h5py.File, path: Path, split: str) -> None:
    if split not in file:
        raise ValueError(f"{path} has no group '{split}', only {sorted(file)}; expected the groups {SPLITS} of PHiSeg.")
    group = file[split]
    missing = {"images", "labels", "uids"} - set(group)
    if missing:
        raise ValueError(f"{path}: group '{split}' has {sorted(group)}, lacks {sorted(missing)}; write the file again.")
    images, labels, uids = (group[name].shape for name in ("images", "labels", "uids"))
    if len(images) != 3 or len(labels) != 4 or labels[:3] != images or uids != images[:1]:
        raise ValueError(
            f"{path}: group '{split}' has images {images}, labels {labels}, uids {uids}; "
            "write them again as (n, H, W), (n, H, W, raters), (n,)."
        )
    if group["labels"].dtype.kind not in "biu":
        raise ValueError(f"{path}: labels are {group['labels'].dtype}; store class ids as integers.")


def _read_images(dataset: h5py.Dataset, rows: np.ndarray, path: Path) -> np.ndarray:
    """Read some images (n, x, y) in 0..255: uint8 as it is, floats as the range of the whole file says."""
    if dataset.dtype == np.uint8:
        return _read_rows(dataset, rows, np.uint8)
    if dataset.dtype.kind != "f":
        raise ValueError(f"{path}: images are {dataset.dtype}; store uint8, or floats in [-0.5, 0.5] or [0, 1].")
    images = _read_rows(dataset, rows, np.float32)
    images += _shift_of_floats(path, path.stat().st_mtime_ns)
    images *= 255.0
    return images


@lru_cache(maxsize=8)
def _shift_of_floats(path: Path, _changed: int) -> float:
    """Say what makes the floats of a file start at 0, by those of all its groups: a dark case alone looks like another range."""
    low, high, slack = np.inf, -np.inf, 1e-3
    with h5py.File(path, "r") as file:
        for dataset in (file[name]["images"] for name in SPLITS if name in file and "images" in file[name]):
            for start in range(0, len(dataset), BLOCK):
                block = dataset[start : start + BLOCK]
                low, high = np.minimum(low, block.min()), np.maximum(high, block.max())  # these keep NaN
    shift = 0.5 if low < -slack else 0.0
    if not (low + shift >= -slack and high + shift <= 1 + slack):
        raise ValueError(
            f"{path}: image values lie in [{low:g}, {high:g}]; scale them to [-0.5, 0.5] or [0, 1], or store uint8."
        )
    logger.info("%s: images lie in [%g, %g] and are read as [%g, %g].", path, low, high, -shift, 1 - shift)
    return shift


def _read_rows(dataset: h5py.Dataset, rows: np.ndarray, dtype: type) -> np.ndarray:
    """Read some rows (n, y, x[, R]) into one array (n, [R,] x, y), block by block."""
    axes = (0, *range(dataset.ndim - 1, 0, -1))
    out: np.ndarray = np.empty([len(rows), *(dataset.shape[axis] for axis in axes[1:])], dtype)
    chunk = dataset.chunks[0] if dataset.chunks else 1
    step = chunk * max(1, BLOCK // chunk)  # whole chunks: none is decompressed twice
    for start in range(0, len(dataset), step):
        first, last = np.searchsorted(rows, [start, start + step])
        if first < last:
            block = dataset[start : start + step][rows[first:last] - start]
            _check_fits(block, out.dtype, dataset)
            out[first:last] = block.transpose(axes)
    return out


def _check_fits(block: np.ndarray, dtype: np.dtype, dataset: h5py.Dataset) -> None:
    """Refuse class ids that another type would turn into others."""
    if block.dtype.kind in "iu" and not np.can_cast(block.dtype, dtype):
        limits = np.iinfo(dtype)
        if block.min() < limits.min or block.max() > limits.max:
            raise ValueError(
                f"{dataset.file.filename}: {dataset.name} holds values from {block.min()} to {block.max()}; class ids must lie "
                f"within {limits.min} and {limits.max}: map them to 0, 1, ... in the file."
            )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _case_names(group: h5py.Group, split: str) -> list[str]:
    names = [_text(name) for name in group["slice_ids"][:]] if "slice_ids" in group else []
    total = len(group["images"])
    return names if len(set(names)) == total else [f"{split}_{row:05d}" for row in range(total)]


def _warn_of_leaks(file: h5py.File, path: Path) -> None:
    patients = [set(file[name]["uids"][:].tolist()) for name in SPLITS if name in file and "uids" in file[name]]
    shared = sum(map(len, patients)) - len(set().union(*patients))
    if shared:
        warnings.warn(
            f"{path}: {shared} patients are in more than one split; results will look too good.", stacklevel=4
        )


def _from_pickle(path: Path, part: Split, limit: int | None) -> list[Case]:
    data = load_arrays(path)
    keys = {"image", "masks", "series_uid"}
    if not isinstance(data, Mapping) or not all(isinstance(v, Mapping) and keys <= v.keys() for v in data.values()):
        raise ValueError(f"{path} is not the LIDC pickle; expected a dict: name -> dict with {sorted(keys)}.")
    kept = part.patients([_text(entry["series_uid"]) for entry in data.values()])
    names = [name for name, entry in data.items() if _text(entry["series_uid"]) in kept]
    return [_from_entry(_text(name), data[name], path) for name in pick_evenly(names, limit)]


def _from_entry(name: str, entry: Mapping[str, Any], path: Path) -> Case:
    image = np.asarray(entry["image"], dtype=np.float32).T[None] * np.float32(255)
    if not (image.min() >= -0.5 and image.max() <= 255.5):
        raise ValueError(f"{path}: case '{name}' has image values beyond [0, 1]; this is not the pickle of S. Knegt.")
    label = _stack([np.asarray(mask).T for mask in entry["masks"]], image.shape[1:], f"{path}: case '{name}'")
    return make_case(image, label, patient=_text(entry["series_uid"]), case=name)


def _stack(masks: Sequence[np.ndarray], size: tuple[int, ...], case: str) -> np.ndarray:
    """Stack the masks (x, y) of the raters of one case into (R, x, y) uint8 of zeros and ones."""
    sizes = [mask.shape for mask in masks]
    if not sizes or any(each != size for each in sizes):
        raise ValueError(
            f"{case}: rater masks of sizes {sizes} for an image of {size}; every mask needs the image's size."
        )
    for mask in masks:
        values = np.unique(mask)
        if not np.isin(values, (0, 1)).all() and not np.isin(values, (0, 255)).all():
            raise ValueError(f"{case}: a rater's mask holds {values[:5].tolist()}; it must hold 0 and 1, or 0 and 255.")
    return np.stack([(mask > 0).astype(np.uint8) for mask in masks])


def _from_folders(root: Path, part: Split, limit: int | None) -> list[Case]:
    if (root / "images").is_dir():
        found = _pictures(root)
        kept = part.patients([_patient_of(path) for path, _ in found])
    else:
        own = {name: _pictures(root / name) for name in part.sources}
        found = [each for pictures in own.values() for each in pictures]
        kept = part.patients({name: [_patient_of(path) for path, _ in pictures] for name, pictures in own.items()})
    return [
        _from_pictures(*each) for each in pick_evenly([each for each in found if _patient_of(each[0]) in kept], limit)
    ]


def _pictures(base: Path) -> list[tuple[Path, Path]]:
    """List every image of a tree with the folder of its masks."""
    masks = next((base / name for name in ("gt", "lesions") if (base / name).is_dir()), None)
    if masks is None or not (base / "images").is_dir():
        raise ValueError(f"{base} needs the folders images/ and gt/ (or lesions/); unpack the archive of that split.")
    paths = sorted((base / "images").rglob("*.png"))
    return [(path, masks / path.parent.relative_to(base / "images")) for path in paths]


def _patient_of(path: Path) -> str:
    return path.stem.split("_")[0] if path.parent.name == "images" else path.parent.name


def _from_pictures(path: Path, masks: Path) -> Case:
    image = to_bytes(read_picture(path, channels=1), path)
    raters = [rater for i in range(4) if (rater := masks / f"{path.stem}_l{i}.png").exists()]
    label = _stack([read_picture_mask(rater) for rater in raters], image.shape[1:], str(path))
    patient = _patient_of(path)
    case = path.stem if path.stem.startswith(patient) else f"{patient}_{path.stem}"
    return make_case(image, label, patient=patient, case=case)
