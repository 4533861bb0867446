"""The maps of a case as DICOM objects: segmentations, one for every draw, and parametric maps of the uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

from monai_flowssn import __version__
from monai_flowssn.dicom.series import frames

__all__ = ["make_objects", "write_objects"]

ABOUT: dict[str, Any] = {
    "manufacturer": "monai_flowssn",
    "manufacturer_model_name": "monai_flowssn",
    "software_versions": __version__,
    "device_serial_number": "0",
}
FIRST_SERIES = 900  # number of the first of ours in the study
UNCERTAINTY = ("entropy", "mutual_information")


def make_objects(case: str | Path, series: list[pydicom.Dataset]) -> Iterator[tuple[str, pydicom.Dataset]]:
    """Turn the maps of an inference on a series into objects of the same study, by highdicom.

    Four series: the segmentation, one segment a class; the draws, one object each, of the same segments; entropy and mutual
    information in nats. For research: a segment says "tissue", because this function does not know what was segmented.

    Bridge et al. 2022, Highdicom, J. Digital Imaging 35, doi 10.1007/s10278-022-00683-y.

    Args:
        case: folder that inference wrote, with ``<case>_segmentation.nii.gz``, ``_draws``, ``_mean`` and the entropies.
        series: the series that it read (:func:`~monai_flowssn.dicom.read_series`).

    Yields:
        the name of each object and the object.

    Raises:
        ValueError: if the maps do not lie on the voxels of the series.
    """
    case = Path(case)

    def path(name: str) -> Path:
        return case / f"{case.name}_{name}.nii.gz"

    mean: Any = nib.load(path("mean"))  # (x, y, z[, foreground classes])
    classes = mean.shape[3] if mean.ndim > 3 else 1
    segmentation = _segmentations("segmentation", frames(path("segmentation"), series)[..., None], classes, series)
    draws = _segmentations("draw", frames(path("draws"), series), classes, series)
    yield "segmentation", next(segmentation)
    for number, draw in enumerate(draws, start=1):
        yield f"draw_{number:03}", draw
    for place, name in enumerate(UNCERTAINTY):
        yield name, _parametric_map(name, frames(path(name), series), FIRST_SERIES + 2 + place, series)


def write_objects(case: str | Path, series: list[pydicom.Dataset], into: str | Path | None = None) -> list[Path]:
    """Write what :func:`make_objects` makes as ``<case>_<name>.dcm``, beside the maps unless ``into`` is another folder."""
    case = Path(case)
    folder = case if into is None else Path(into)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, made in make_objects(case, series):
        paths.append(folder / f"{case.name}_{name}.dcm")
        made.save_as(paths[-1])
    return paths


def _segmentations(
    kind: str, labels: np.ndarray, classes: int, series: list[pydicom.Dataset]
) -> Iterator[pydicom.Dataset]:
    """Yield one object for each of the label maps (slice, row, column, n), all of one series."""
    uid, count = hd.UID(), labels.shape[-1]
    for i in range(count):
        name = kind if count == 1 and kind != "draw" else f"{kind} {i + 1} of {count}"
        yield hd.seg.Segmentation(
            series,
            (labels[..., i, None] == np.arange(1, classes + 1)).astype(np.uint8),
            hd.seg.SegmentationTypeValues.BINARY,
            [_describe(k, f"class {k}") for k in range(1, classes + 1)],
            series_instance_uid=uid,
            series_number=FIRST_SERIES + (kind == "draw"),
            series_description=f"monai_flowssn {kind}" + ("s" if kind == "draw" else ""),
            sop_instance_uid=hd.UID(),
            instance_number=i + 1,
            content_label=kind.upper(),
            content_description=name,
            **ABOUT,
        )


def _describe(number: int, label: str) -> hd.seg.SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(
        name="monai_flowssn", version=__version__, family=codes.cid7162.ArtificialIntelligence
    )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )


def _parametric_map(name: str, values: np.ndarray, number: int, series: list[pydicom.Dataset]) -> pydicom.Dataset:
    values = values.astype(np.float32)
    top = float(max(values.max(), np.log(2)))  # that of two classes, or what more of them reach
    explained = f"{name.replace('_', ' ')} of class and draw, in nats"
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=name[:16].upper(),
        lut_explanation=explained,
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, top),
        slope=1.0,
        intercept=0.0,
    )
    # LINEAR, the default, wants windows of 1 and more
    window = hd.VOILUTTransformation(window_center=top / 2, window_width=top, voi_lut_function="LINEAR_EXACT")
    made = hd.pm.ParametricMap(
        series,
        values,
        series_instance_uid=hd.UID(),
        series_number=number,
        series_description=f"monai_flowssn {name.replace('_', ' ')}",
        sop_instance_uid=hd.UID(),
        instance_number=1,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label=name[:16].upper(),
        content_description=explained,
        **ABOUT,
    )
    made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(series[0])]
    return made


def _anatomy(image: pydicom.Dataset) -> pydicom.Dataset:
    """Return the part of the body, without which dcmqi does not read a parametric map: that of the series, else the body."""
    anatomy: Any = pydicom.Dataset()
    body = hd.sr.CodedConcept.from_code(codes.SCT.EntireBody)
    anatomy.AnatomicRegionSequence = image.get("AnatomicRegionSequence") or [body]
    anatomy.FrameLaterality = image.get("ImageLaterality") or image.get("Laterality") or "U"
    return anatomy
