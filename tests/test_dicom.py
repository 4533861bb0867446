"""A DICOM series in, NIfTI and DICOM objects out, all in the same place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import run
from tiny_scales import tiny_scale

ROOT = Path(__file__).resolve().parent.parent
pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")

pytestmark = pytest.mark.filterwarnings("ignore")
SPACING, THICKNESS, ORIGIN = (0.6, 0.8), 2.5, np.array([-30.0, 12.0, 100.0])  # between rows, between columns
ANGLE = np.deg2rad(20)
ROW = np.array([np.cos(ANGLE), np.sin(ANGLE), 0])  # direction in which columns count: an oblique scan
COLUMN = np.array([-np.sin(ANGLE), np.cos(ANGLE), 0])


def write_series(folder: Path, volume: np.ndarray) -> None:
    """Write CT slices (Z, rows, columns), the last one first."""
    folder.mkdir(parents=True)
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    for k in reversed(range(len(volume))):
        image = pydicom.Dataset()
        image.SOPClassUID, image.SOPInstanceUID = pydicom.uid.CTImageStorage, pydicom.uid.generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.Modality, image.PatientID, image.PatientName, image.StudyID = "CT", "p1", "Test^Phantom", "1"
        image.PatientBirthDate = image.PatientSex = image.AccessionNumber = image.ReferringPhysicianName = ""
        image.StudyDate, image.StudyTime, image.Manufacturer = "20260101", "120000", "none"
        image.SeriesNumber, image.InstanceNumber, image.PositionReferenceIndicator = 1, len(volume) - k, ""
        image.ImagePositionPatient = [float(v) for v in ORIGIN + np.array([0, 0, THICKNESS * k])]
        image.ImageOrientationPatient = [float(v) for v in (*ROW, *COLUMN)]
        image.PixelSpacing, image.SliceThickness = list(SPACING), THICKNESS
        image.Rows, image.Columns = volume.shape[1:]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.PixelData = volume[k].astype(np.int16).tobytes()
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        image.save_as(folder / f"slice{k}.dcm", enforce_file_format=True)


def test_a_series_keeps_its_place(tiny_options: dict, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    volume = generator.normal(-700, 50, (5, 20, 18))
    volume[2, 4:9, 3:7] += 700
    write_series(tmp_path / "series", volume)
    entry = {"image": "series", "patient": "p1", "case": "scan"}
    (tmp_path / "datalist.json").write_text(json.dumps({"test": [entry]}))

    bundle = ROOT / "bundles" / "ssn_segmentation" / "configs"
    tiny_options = {**tiny_scale("ssn"), **tiny_options}
    # on other data; it has to run, not to be good
    run("training", config_file=str(bundle / "train.yaml"), **tiny_options)
    options = {**tiny_options, "datalist_file": str(tmp_path / "datalist.json"), "data::intensity_range": [-1000, 400]}
    del options["dataset_dir"]
    files = [str(bundle / "inference.yaml"), str(ROOT / "configs" / "data" / "datalist.yaml")]
    run("inference", config_file=files, **options)

    case = tmp_path / "runs" / "inference" / "scan"
    majority = nibabel.load(case / "scan_majority.nii.gz")
    assert majority.shape == (18, 20, 5)
    lps = np.eye(4)
    lps[:3] = np.stack([ROW * SPACING[1], COLUMN * SPACING[0], [0, 0, THICKNESS], ORIGIN], axis=1)
    np.testing.assert_allclose(majority.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-4)

    subprocess.run([sys.executable, ROOT / "scripts/dicom_out.py", case, tmp_path / "series"], check=True)
    check_dicom(case, majority)

    for name in ("draws", "majority"):  # as of a model of two foreground classes
        maps = nibabel.load(case / f"scan_{name}.nii.gz")
        values = np.where(np.arange(maps.shape[0]).reshape(-1, *[1] * (maps.ndim - 1)) < 9, 2, 1) * np.asarray(
            maps.dataobj
        )
        nibabel.save(nibabel.Nifti1Image(values.astype(np.uint8), maps.affine), case / f"scan_{name}.nii.gz")
    mean = nibabel.load(case / "scan_mean.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.stack(2 * [mean.get_fdata()], axis=-1), mean.affine), case / "scan_mean.nii.gz")
    subprocess.run([sys.executable, ROOT / "scripts/dicom_out.py", case, tmp_path / "series"], check=True)
    segmentation = hd.seg.segread(case / "scan_segmentation.dcm")
    labels = [segmentation.get_segment_description(i).SegmentLabel for i in segmentation.segment_numbers]
    assert labels[3:5] == ["draw 3, class 1", "majority, class 2"]
    draws = np.asarray(nibabel.load(case / "scan_draws.nii.gz").dataobj)
    for number, expected in ((4, draws[..., 2] == 1), (8, draws[..., 2] == 2)):
        assert expected.any()
        found = placed(segmentation.get_volume(segment_numbers=[number]), majority)
        np.testing.assert_array_equal(found > 0, expected)

    for image in (tmp_path / "series").iterdir():  # one voxel further along the rows: no longer the series of the maps
        moved = pydicom.dcmread(image)
        moved.ImagePositionPatient = [float(v) for v in np.array(moved.ImagePositionPatient) + SPACING[1] * ROW]
        moved.save_as(image)
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/dicom_out.py", case, tmp_path / "series"], capture_output=True, text=True
    )
    assert result.returncode
    assert "does not lie on the voxels of the series" in result.stderr


def placed(volume: hd.Volume, like: nibabel.Nifti1Image) -> np.ndarray:
    """Return the values of a DICOM volume in the voxels of a NIfTI image, by their places alone."""
    array = np.squeeze(volume.array)
    index = np.indices(array.shape).reshape(3, -1)
    places = np.diag([-1, -1, 1, 1]) @ volume.affine @ np.concatenate([index, np.ones_like(index[:1])])  # LPS to RAS
    found = np.linalg.solve(like.affine, places)[:3]
    np.testing.assert_allclose(found, np.rint(found), atol=1e-2)
    values = np.zeros(like.shape[:3], array.dtype)
    values[tuple(np.rint(found).astype(int))] = array.reshape(-1)
    return values


def check_dicom(case: Path, majority: nibabel.Nifti1Image) -> None:
    draws = np.asarray(nibabel.load(case / "scan_draws.nii.gz").dataobj)
    segmentation = hd.seg.segread(case / "scan_segmentation.dcm")
    labels = [segmentation.get_segment_description(i).SegmentLabel for i in segmentation.segment_numbers]
    assert labels == ["majority", "draw 1", "draw 2", "draw 3"]
    assert draws.any()
    for number, expected in enumerate([np.asarray(majority.dataobj), *np.moveaxis(draws, -1, 0)], start=1):
        found = placed(segmentation.get_volume(segment_numbers=[number]), majority)
        np.testing.assert_array_equal(found > 0, expected > 0)
    for name in ("entropy", "mutual_information"):
        found = placed(hd.imread(case / f"scan_{name}.dcm").get_volume(), majority)
        expected = np.asarray(nibabel.load(case / f"scan_{name}.nii.gz").dataobj)
        np.testing.assert_allclose(found, expected, atol=1e-6)
