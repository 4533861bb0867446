"""MMIS-2024, task 1 (NPC-170): nasopharyngeal carcinoma in three MR contrasts, outlined by four raters.

References: Wu et al., "Diversified and Personalized Multi-rater Medical Image Segmentation", CVPR 2024 (D-Persona); Wu et
al., "Dataset, Challenge, and Evaluation for Tumor Segmentation Variability", ACM MM 2024; slices of 128x128 as in Nguyen
et al., "Aleatoric Uncertainty Medical Image Segmentation Estimation via Flow Matching", 2025, arXiv 2507.22418.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monai_flowssn.data.cases import Case, check_cases, make_case, pick_evenly, spacing_affine
from monai_flowssn.data.geometry import check_same_place
from monai_flowssn.data.hdf5 import opened
from monai_flowssn.data.reading import read_image
from monai_flowssn.data.splits import Split, split_patients

__all__ = ["mmis"]

MODALITIES = ("t1", "t1c", "t2")
RATERS = ("label_a1", "label_a2", "label_a3", "label_a4")
FOLDERS = {"train": "training", "val": "validation", "test": "testing"}


class _Volume(NamedTuple):
    patient: str
    files: tuple[Path, ...]  # an HDF5 volume, its HDF5 slices in order, or a folder of NIfTI files


def mmis(
    root: str | Path,
    split: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
    volumes: bool = False,
    empty_slices: bool = False,
) -> list[Case]:
    """List the cases of one split as in-memory items: slices (2-D) or volumes (3-D), in their own resolution.

    `root` has the folders training, validation and testing with

    - one HDF5 file per patient, as the challenge hands them out: t1, t1c, t2 and label_a1 to label_a4 (z, y, x), and
      optionally voxel_spacing (z, y, x) in mm;
    - or one HDF5 file per slice, as in D-Persona's training_2d: <patient>_slice_<z>.h5 with the same entries (y, x).
      training_2d is read where training is absent, and likewise for the others;
    - or one folder per patient with t1.nii.gz, t1c.nii.gz, t2.nii.gz and label_a1.nii.gz to label_a4.nii.gz.

    The challenge published its training and validation parts. Where testing is absent, `validation` is the test split,
    as in the public code of the flow-matching paper, and 15 % of the patients of `training` validate.

    Each contrast of a patient is scaled from its minimum and maximum to 0..255. Slices that no rater marked are left out
    unless `empty_slices`; the public code of the flow-matching paper keeps them, so compare counts before numbers.
    Written for these layouts; has not met the real archive.

    Args:
        root: folder as above.
        split: "train", "val" or "test".
        limit: at most so many evenly spaced cases, for quick runs.
        seed: of the folds, and of the split of `training` where testing is absent.
        folds: number of folds of a cross-validation over all patients, None for a single split; see `splits.Split`.
        fold: the fold to test on.
        volumes: whole volumes in place of slices.
        empty_slices: keep slices without any mark.

    Returns:
        Items with image (3, *S) float32, label (4, *S) uint8, patient, and case.
    """
    root, part = Path(root).expanduser(), Split(split, folds=folds, fold=fold, seed=seed)
    found = {name: _list_patients(root, folder) for name, folder in FOLDERS.items()}
    if not any(found.values()):
        raise ValueError(f"{root} has no patients in {list(FOLDERS.values())}; give the folder that holds these three.")
    kept = part.patients(_own_split({name: [each.patient for each in found[name]] for name in found}, seed))
    patients = [each for name in FOLDERS for each in found[name] if each.patient in kept]
    cases = [(each, z) for each in patients for z in ([None] if volumes else _planes(each, empty_slices))]
    items = []
    for volume, group in groupby(pick_evenly(cases, limit), key=lambda case: case[0]):
        image, affine = _read(volume, MODALITIES)
        label, place = _read(volume, RATERS)
        if image.shape[1:] != label.shape[1:]:
            raise ValueError(f"{volume.files[0]}: {MODALITIES} have size {image.shape[1:]}, masks {label.shape[1:]}.")
        check_same_place(place, affine, image.shape[1:], f"{volume.files[0]}: {RATERS[0]}")
        image, label = _scale_to_255(image, volume), _check_masks(label, volume)
        items += [_make(volume, z, image, label, affine) for _, z in group]
    return check_cases(items, source=root, split=split)


def _list_patients(root: Path, folder: str) -> list[_Volume]:
    for base in (root / folder, root / f"{folder}_2d"):
        parts: dict[str, list[Path]] = {}
        for path in sorted(base.glob("*.h5"), key=_slice_number):
            parts.setdefault(path.stem.split("_slice")[0], []).append(path)
        for path in sorted({path.parent for path in base.glob("*/*.nii*")}):
            parts[path.name] = [path]
        if parts:  # names may recur from folder to folder, and are then other patients
            return [_Volume(f"{folder}-{name}", tuple(parts[name])) for name in sorted(parts)]
    return []


def _slice_number(path: Path) -> int:
    digits = re.search(r"_slice\D*(\d+)$", path.stem)
    return int(digits[1]) if digits else 0


def _own_split(patients: dict[str, list[str]], seed: int) -> dict[str, list[str]]:
    if patients["test"]:
        return patients
    dealt = split_patients(patients["train"], fractions=(0.85, 0.15, 0.0), seed=seed)
    return {"train": dealt["train"], "val": dealt["val"], "test": patients["val"]}


def _planes(volume: _Volume, empty_slices: bool) -> list[int]:
    label, _ = _read(volume, RATERS)  # (R, x, y, z)
    return list(range(label.shape[3])) if empty_slices else np.flatnonzero(label.any((0, 1, 2))).tolist()


def _read(volume: _Volume, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the named arrays (n, x, y, z) of a patient, and its affine (4, 4)."""
    nifti = volume.files[0].is_dir()
    arrays, affines = zip(
        *(_read_nifti(volume.files[0], name) if nifti else _read_hdf5(volume, name) for name in names)
    )
    sizes = {name: array.shape for name, array in zip(names, arrays)}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{volume.files[0]}: sizes differ, {sizes}; all contrasts and masks need the same grid.")
    for name, affine in zip(names, affines):
        check_same_place(affine, affines[0], arrays[0].shape, f"{volume.files[0]}: {name}")
    return np.stack(arrays), affines[0]


def _read_hdf5(volume: _Volume, name: str) -> tuple[np.ndarray, np.ndarray]:
    planes, spacings = [], set()
    for path in volume.files:
        with opened(path) as file:
            if name not in file:
                raise ValueError(f"{path} has {sorted(file)}, but no '{name}'; copy or download it again.")
            planes.append(np.atleast_3d(file[name][()].T))  # (x, y, z)
            spacings.add(tuple(np.ravel(file["voxel_spacing"][()]).tolist()) if "voxel_spacing" in file else (1.0,) * 3)
    sizes = {plane.shape[:2] for plane in planes}
    if len(sizes) > 1 or len(spacings) > 1:
        raise ValueError(
            f"{volume.files[0].parent}: slices of '{volume.patient}' have the sizes {sorted(sizes)} and spacings "
            f"{sorted(spacings)}; those of a volume have one: correct or remove it."
        )
    return np.concatenate(planes, axis=2), spacing_affine(*spacings.pop()[::-1])


def _read_nifti(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    path = next(iter(sorted(folder.glob(f"{name}.nii*"))), None)
    if path is None:
        raise ValueError(f"{folder / name}.nii.gz is missing; every patient needs {MODALITIES} and {RATERS}.")
    image = read_image(path)
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"{path} has shape {tuple(image.shape)} (channels first); it must be one volume (x, y, z).")
    return image[0].numpy(), image.affine.numpy()


def _scale_to_255(image: np.ndarray, volume: _Volume) -> np.ndarray:
    """Scale each contrast (x, y, z) of a patient from its minimum and maximum to 0..255."""
    if not np.isfinite(image).all():
        raise ValueError(f"{volume.files[0]}: '{volume.patient}' has NaN or infinite values; correct or remove it.")
    image = image.astype(np.float32)
    low, high = image.min((1, 2, 3), keepdims=True), image.max((1, 2, 3), keepdims=True)
    return (image - low) * (255 / np.where(high > low, high - low, 1))


def _check_masks(label: np.ndarray, volume: _Volume) -> np.ndarray:
    wrong = np.unique(label[(label != 0) & (label != 1)])
    if wrong.size:
        raise ValueError(
            f"{volume.files[0]}: masks of '{volume.patient}' hold {wrong[:5].tolist()}; expected 0 (background) and 1 "
            "(tumour) only. Map other values, and threshold soft masks."
        )
    return label.astype(np.uint8)


def _make(volume: _Volume, z: int | None, image: np.ndarray, label: np.ndarray, affine: np.ndarray) -> Case:
    case, affine = volume.patient, affine.copy()
    if z is not None:
        image, label = (np.ascontiguousarray(array[..., z]) for array in (image, label))
        case, affine[:3, 3] = f"{case}_slice-{z:03d}", affine[:3, 3] + z * affine[:3, 2]
    return make_case(image, label, patient=volume.patient, case=case, affine=affine)
