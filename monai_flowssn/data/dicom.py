"""A folder of DICOM files as the one volume that its affine says it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import itk
import numpy as np
from monai.data import ITKReader

from monai_flowssn.data.geometry import SHARE

__all__ = ["SUFFIXES", "SeriesReader"]

SUFFIXES = (".dcm", ".dicom", ".ima", "")
DERIVED = ("SEG", "RTSTRUCT", "RTDOSE", "PR", "SR")  # that are no images; of a SEG, ITK would stack the segments
ROUNDED = 0.11  # mm: two positions in tenths
SERIES, MODALITY, POSITION = "0020|000e", "0008|0060", "0020|0032"


class _Slice(NamedTuple):
    file: Path
    series: str
    size: tuple[int, ...]
    position: np.ndarray | None  # (3,) mm; None if the file does not say
    axes: np.ndarray  # (3, 2), of a column and a row step in mm
    frames: int


class SeriesReader(ITKReader):
    """MONAI's ITK reader for DICOM, of slices that lie where the affine of the volume says.

    ITK takes the positions of the first and the last slice and spreads the others evenly between them, whatever is missing,
    doubled or sheared; so each slice is compared with its place first.

    Raises:
        ValueError: if the slices of a folder belong to several series or orientations (a scout), or one is doubled, missing, or
            shifted in its plane (gantry tilt); for objects that are no images, such as DICOM SEG.
    """

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Return the ITK image of a file or a folder."""
        path = Path(data[0] if isinstance(data, (list, tuple)) else data)
        slices = _slices(path)
        if len(slices) == 1:
            return super().read(str(slices[0].file), **kwargs)
        return itk.imread([str(each.file) for each in _in_order(slices, path)], **kwargs)


def _slices(path: Path) -> list[_Slice]:
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    slices = []
    for file in files:
        header = itk.GDCMImageIO.New(FileName=str(file))
        if header.CanReadFile(str(file)):
            slices.append(_slice(file, header))
        elif not path.is_dir() or file.suffix.lower() in SUFFIXES[:-1]:
            raise ValueError(f"{file} is not a whole DICOM file; replace it with a good copy, or remove it.")
    if not slices:
        raise ValueError(f"{path} holds no DICOM file; name the folder of one series.")
    return slices


def _slice(file: Path, header: Any) -> _Slice:
    header.ReadImageInformation()
    tags = header.GetMetaDataDictionary()

    def tag(name: str) -> str:
        return str(tags[name]).strip("\0 ") if tags.HasKey(name) else ""

    if tag(MODALITY) in DERIVED:
        raise ValueError(
            f"{file} is a DICOM {tag(MODALITY)}, which is not read; convert masks to one NIfTI or NRRD file per rater (for "
            "DICOM SEG: dcmqi's segimage2itkimage), and keep it out of the folder of the images."
        )
    shape = tuple(header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions()))
    axes = np.array([np.multiply(header.GetDirection(axis), header.GetSpacing(axis)) for axis in range(2)]).T
    position = np.array(tag(POSITION).split("\\"), float) if tag(POSITION).count("\\") == 2 else None
    return _Slice(file, tag(SERIES), shape[:2], position, axes, shape[2] if len(shape) > 2 else 1)


def _in_order(slices: Sequence[_Slice], path: Path) -> list[_Slice]:
    """Return the slices along their normal, once each of them is where it must be."""
    _check_one_series(slices, path)
    for each in slices:
        if each.position is None or each.frames > 1:
            raise ValueError(
                f"{path}: {each.file.name} has {each.frames} frames or no position; convert the series to NIfTI."
            )
    column, row = slices[0].axes.T
    normal = np.cross(column, row) / np.linalg.norm(np.cross(column, row))
    places = np.array([each.position for each in slices])  # (Z, 3)
    order = (places @ normal).argsort(kind="stable")
    slices, places = [slices[i] for i in order], places[order] - places[order[0]]
    _check_steps(slices, places @ normal, path)
    drift = places - np.outer(places @ normal, normal)  # in the plane
    worst = drift[np.linalg.norm(drift, axis=1).argmax()]
    if np.linalg.norm(worst) > _slack(min(np.linalg.norm(column), np.linalg.norm(row))):
        angle = np.degrees(np.arctan2(np.linalg.norm(drift[-1]), places[-1] @ normal))
        raise ValueError(
            f"{path}: slices are shifted in their plane, in all by {np.round(worst, 3).tolist()} mm, a gantry tilt of "
            f"{angle:.1f} degrees; the affine of a volume has none: resample the series to NIfTI (dcm2niix does)."
        )
    return slices


def _check_steps(slices: Sequence[_Slice], heights: np.ndarray, path: Path) -> None:
    """Refuse slices in order at the heights (Z,) in mm that are doubled, missing, or uneven."""
    distances = np.diff(heights)
    step = float(np.median(distances[distances > 1e-3])) if (distances > 1e-3).any() else 1.0
    for k, distance in enumerate(distances):
        pair = f"{path}: {slices[k].file.name} and {slices[k + 1].file.name}"
        if distance < SHARE * step:
            raise ValueError(
                f"{pair} lie at the same place; a series has one slice at each: remove one, or part the phases."
            )
        if abs(distance - step) > _slack(step):
            raise ValueError(
                f"{pair} are {distance:.4g} mm apart, others {step:.4g} mm; the slices of a volume have even steps: add those "
                "that are missing, or resample the series to NIfTI."
            )
    away = np.abs(heights - np.linspace(0, heights[-1], len(heights)))
    if away.max() > _slack(step):
        raise ValueError(
            f"{path}: {slices[int(away.argmax())].file.name} is {away.max():.4g} mm from its place between the first and the "
            "last slice; the slices of a volume have even steps: resample the series to NIfTI."
        )


def _slack(edge: float | np.floating) -> float:
    """Return how far in mm a slice may be from its place along an edge of a voxel; some scanners write tenths of a mm."""
    return float(max(SHARE * edge, min(ROUNDED, edge / 4)))


def _check_one_series(slices: Sequence[_Slice], path: Path) -> None:
    groups: dict[tuple[Any, ...], list[_Slice]] = defaultdict(list)
    for each in slices:
        groups[each.series, each.size, tuple(np.round(each.axes, 3).flatten())].append(each)
    if len(groups) > 1:
        found = sorted(groups.values(), key=len, reverse=True)
        listed = "; ".join(f"{len(g)} of {g[0].size} from {g[0].file.name}, series {g[0].series}" for g in found[:5])
        raise ValueError(
            f"{path} holds slices of {len(groups)} series, orientations or sizes ({listed}); one case is one series: put each "
            "into a folder of its own, and remove scouts."
        )
