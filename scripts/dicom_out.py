"""Turn the maps of an inference on a DICOM series into DICOM objects of the same study.

    pip install '.[dicom]'
    python scripts/dicom_out.py my_run/runs/inference/CASE SERIES_FOLDER

CASE is the folder that inference wrote, SERIES_FOLDER the series that it read. Written beside the maps: CASE_segmentation.dcm, a
DICOM-SEG whose first segment is the majority label and whose others are the draws, one each (with several foreground classes: one
for each class); and
CASE_entropy.dcm and CASE_mutual_information.dcm, parametric maps in nats. By highdicom (Bridge et al. 2022, doi
10.1007/s10278-022-00683-y). For research: a segment says "tissue", because this script does not know what was segmented.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

from monai_flowssn import __version__

RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ABOUT = {
    "instance_number": 1,
    "manufacturer": "monai_flowssn",
    "manufacturer_model_name": "monai_flowssn",
    "software_versions": __version__,
    "device_serial_number": "0",
}


def read_series(folder: Path) -> list[pydicom.Dataset]:
    """Return the images of the one series in a folder."""
    images = [
        pydicom.dcmread(path) for path in sorted(folder.iterdir()) if path.is_file() and pydicom.misc.is_dicom(path)
    ]
    images = [image for image in images if "ImagePositionPatient" in image]
    series = {image.SeriesInstanceUID for image in images}
    if len(series) != 1:
        raise SystemExit(f"{folder} has images of {len(series)} series; give the folder of one.")
    return images


def corners(image: pydicom.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the first and the last pixel of a slice, (4,) in mm, RAS."""
    first = np.array(image.ImagePositionPatient, dtype=float)
    along_row, along_column = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = map(float, image.PixelSpacing)
    last = first + (image.Columns - 1) * between_columns * along_row + (image.Rows - 1) * between_rows * along_column
    return RAS_OF_LPS @ [*first, 1.0], RAS_OF_LPS @ [*last, 1.0]


def frames(path: Path, series: list[pydicom.Dataset]) -> np.ndarray:
    """Return a map (x, y, z[, n]) as frames (slice, row, column[, n]) in the order of the series."""
    image = nib.load(path)
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
            raise SystemExit(f"{path} does not lie on the voxels of the series; give the series that it was made of.")
        plane = values[:, :, round(k)]
        plane = plane[::-1] if turned[0] else plane
        plane = plane[:, ::-1] if turned[1] else plane
        slices.append(plane.swapaxes(0, 1))
    return np.stack(slices)


def describe(number: int, label: str) -> hd.seg.SegmentDescription:
    """Return what a segment is."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("series", type=Path)
    arguments = parser.parse_args()
    case, series = arguments.case, read_series(arguments.series)

    def maps(name: str) -> np.ndarray:
        return frames(case / f"{case.name}_{name}.nii.gz", series)

    draws = maps("draws")
    every = np.concatenate([maps("majority")[..., None], draws], axis=-1)
    names = ["majority", *(f"draw {i + 1}" for i in range(draws.shape[-1]))]
    mean = nib.load(case / f"{case.name}_mean.nii.gz").shape  # (x, y, z[, foreground classes])
    classes = range(1, (mean[-1] if len(mean) > 3 else 1) + 1)
    masks = np.concatenate([every == c for c in classes], axis=-1)
    labels = [name if len(classes) == 1 else f"{name}, class {c}" for c in classes for name in names]
    segmentation = hd.seg.Segmentation(
        series,
        masks.astype(np.uint8),
        hd.seg.SegmentationTypeValues.BINARY,
        [describe(number, label) for number, label in enumerate(labels, start=1)],
        series_instance_uid=hd.UID(),
        series_number=900,
        sop_instance_uid=hd.UID(),
        content_label="DRAWS",
        **ABOUT,
    )
    segmentation.save_as(case / f"{case.name}_segmentation.dcm")
    for number, name in enumerate(("entropy", "mutual_information"), start=901):
        values = maps(name).astype(np.float32)
        top = float(max(values.max(), np.log(2)))  # that of two classes, or what more of them reach
        mapping = hd.pm.RealWorldValueMapping(
            lut_label=name[:16].upper(),
            lut_explanation=f"{name.replace('_', ' ')} of class and draw, in nats",
            unit=codes.UCUM.NoUnits,
            value_range=(0.0, top),
            slope=1.0,
            intercept=0.0,
        )
        parametric = hd.pm.ParametricMap(
            series,
            values,
            series_instance_uid=hd.UID(),
            series_number=number,
            sop_instance_uid=hd.UID(),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            window_center=top / 2,
            window_width=top,
            content_label=name[:16].upper(),
            **ABOUT,
        )
        parametric.save_as(case / f"{case.name}_{name}.dcm")


if __name__ == "__main__":
    main()
