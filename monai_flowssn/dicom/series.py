"""A series of slices, and maps on its voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom

__all__ = ["frames", "read_series"]

RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# an object made of a series names its study, its place and its slices
REQUIRED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "PixelSpacing",
)
# empty in many files, and left out by some scanners and most tools that remove names
OPTIONAL = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "PositionReferenceIndicator",
)


def read_series(folder: str | Path, uid: str | None = None) -> list[pydicom.Dataset]:
    """Return the slices of one series, without their pixels; optional attributes that are missing are there, and empty.

    Args:
        folder: of DICOM files; others in it are left out, and DICOM files that have no place, such as reports.
        uid: SeriesInstanceUID, where the folder holds several series.

    Raises:
        ValueError: if there is no such series or a choice of several, which it lists; or a slice lacks what places it.
    """
    series: dict[str, list[Any]] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and pydicom.misc.is_dicom(path):
            image = pydicom.dcmread(path, stop_before_pixels=True)
            if "ImagePositionPatient" in image and "SeriesInstanceUID" in image:
                series.setdefault(image.SeriesInstanceUID, []).append(image)
    chosen = series.get(uid) if uid else next(iter(series.values())) if len(series) == 1 else None
    if chosen is None:
        found = "".join(f"\n  {_about(slices)}" for slices in series.values()) or " none"
        asked = f"no series {uid}" if uid else f"{len(series)} series of slices"
        raise ValueError(f"{folder} has {asked}; give the UID of one that it has:{found}")
    for image in chosen:
        missing = [name for name in REQUIRED if name not in image]
        if missing:
            raise ValueError(
                f"{image.filename} has no {', '.join(missing)}; a result cannot be placed without: export it anew."
            )
        for name in OPTIONAL:
            if name not in image:
                setattr(image, name, None)
        if not image.get("SliceThickness"):
            image.SliceThickness = _distance(chosen)
    return chosen


def _distance(slices: list[pydicom.Dataset]) -> float:
    """Return the distance of neighbouring slices in mm; 1 for a single one, as ITK has it."""
    normal = np.cross(*np.array(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3))
    along = np.sort([normal @ np.array(each.ImagePositionPatient, dtype=float) for each in slices])
    return round(float(np.median(np.diff(along))), 6) if len(slices) > 1 else 1.0


def _about(slices: list[pydicom.Dataset]) -> str:
    first = slices[0]
    described = f"{first.get('Modality', '')} {first.get('SeriesDescription', '')}".strip()
    return f"{first.SeriesInstanceUID}  {len(slices)} slices  {described}"


def corners(image: pydicom.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the first and the last pixel of a slice, (4,) in mm, RAS."""
    first = np.array(image.ImagePositionPatient, dtype=float)
    along_row, along_column = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = map(float, image.PixelSpacing)
    last = first + (image.Columns - 1) * between_columns * along_row + (image.Rows - 1) * between_rows * along_column
    return RAS_OF_LPS @ [*first, 1.0], RAS_OF_LPS @ [*last, 1.0]


def frames(path: Path, series: list[pydicom.Dataset]) -> np.ndarray:
    """Return a map in a NIfTI file, (x, y, z[, n]), as frames (slice, row, column[, n]) in the order of the series.

    Raises:
        ValueError: if the map lies elsewhere.
    """
    image: Any = nib.load(path)
    values = np.asarray(image.dataobj)
    slices = []
    for each in series:
        (i, j, k), far = (np.linalg.solve(image.affine, place)[:3] for place in corners(each))
        # a reader may have turned an axis: the first pixel is then at its end
        turned = [abs(i) > 0.05, abs(j) > 0.05]
        first = [size - 1 if turn else 0 for size, turn in zip(values.shape, turned)]
        last = [size - 1 - start for size, start in zip(values.shape, first)]
        here = [*first, round(k), *last, round(k)]
        if not np.allclose([i, j, k, *far], here, atol=0.05) or not 0 <= round(k) < values.shape[2]:
            raise ValueError(f"{path} does not lie on the voxels of the series; give the series that it was made of.")
        plane = values[:, :, round(k)]
        plane = plane[::-1] if turned[0] else plane
        plane = plane[:, ::-1] if turned[1] else plane
        slices.append(plane.swapaxes(0, 1))
    return np.stack(slices)
