"""A folder of DICOM files as the one volume that its affine says it is."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import itk
import numpy as np
from monai.data import ITKReader

from monai_flowssn.data.geometry import SHARE
from monai_flowssn.options import check_option

__all__ = ["SUFFIXES", "SeriesReader", "why"]

CHOICES = ("one", "longest")
SUFFIXES = (".dcm", ".dicom", ".ima", "")
DERIVED = ("SEG", "RTSTRUCT", "RTDOSE", "PR", "SR")  # that are no images; of a SEG, ITK would stack the segments
ROUNDED = 0.11  # mm: two positions in tenths
SERIES, MODALITY, POSITION = "0020|000e", "0008|0060", "0020|0032"


def why(error: Exception) -> str:
    """Return the line of an error that says what happened; ITK's begin with a place in its source."""
    lines = [line for line in str(error).strip().split("\n") if ".cxx:" not in line and ".h:" not in line]
    return lines[0] if lines else type(error).__name__


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

    Args:
        choice: "one" where a folder has to hold one series, or "longest" of several, which a warning names.
        options: others of MONAI's reader.

    Raises:
        ValueError: if the slices of a folder belong to several series or orientations (a scout), of which none is chosen; if one
            is doubled, missing, or shifted in its plane (gantry tilt); for objects that are no images, such as DICOM SEG.
    """

    def __init__(self, *, choice: str = "one", **options: Any) -> None:
        super().__init__(**options)
        check_option("series", choice, CHOICES)
        self.choice = choice

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Return the ITK image of a file or a folder."""
        path = Path(data[0] if isinstance(data, (list, tuple)) else data)
        slices = _slices(path)
        if len(slices) == 1:
            return super().read(str(slices[0].file), **kwargs)
        return itk.imread([str(each.file) for each in _in_order(_chosen(slices, path, self.choice), path)], **kwargs)


def _slices(path: Path) -> list[_Slice]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in found if file.is_file() and file.name != "DICOMDIR"]
    slices = []
    for file in files:
        header = itk.GDCMImageIO.New(FileName=str(file))
        if header.CanReadFile(str(file)):
            slices.append(_slice(file, header))
        elif not path.is_dir() or file.suffix.lower() in SUFFIXES[:-1]:
            raise ValueError(
                f"{file} is no DICOM image: cut, or of another kind, such as RTSTRUCT; replace it with a good copy, or remove it."
            )
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


def _chosen(slices: Sequence[_Slice], path: Path, choice: str) -> list[_Slice]:
    """Return the slices of the one series of a folder, or of its longest."""
    groups: dict[tuple[Any, ...], list[_Slice]] = defaultdict(list)
    for each in slices:
        groups[each.series, each.size, tuple(np.round(each.axes, 3).flatten())].append(each)
    found = sorted(groups.values(), key=len, reverse=True)
    if len(found) > 1:
        listed = "; ".join(f"{len(g)} of {g[0].size} from {g[0].file.name}, series {g[0].series}" for g in found[:5])
        holds = f"{path} holds slices of {len(found)} series, orientations or sizes ({listed})"
        if choice == "one" or len(found[0]) == len(found[1]):
            raise ValueError(
                f"{holds}; one case is one series: put each into a folder of its own, and remove scouts, or take the longest, if "
                "one is, with --data::series longest."
            )
        warnings.warn(f"{holds}; the first, the longest, is read.", stacklevel=2)
    return found[0]
