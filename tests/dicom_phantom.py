"""An oblique CT series, and maps on its voxels as inference writes them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom

SPACING, THICKNESS, ORIGIN = (0.6, 0.8), 2.5, np.array([-30.0, 12.0, 100.0])  # between rows, between columns
ANGLE = np.deg2rad(20)
ROW = np.array([np.cos(ANGLE), np.sin(ANGLE), 0])  # direction in which columns count: an oblique scan
COLUMN = np.array([-np.sin(ANGLE), np.cos(ANGLE), 0])
AFFINE = np.eye(4)  # of (column, row, slice), RAS
AFFINE[:3] = np.stack([ROW * SPACING[1], COLUMN * SPACING[0], [0, 0, THICKNESS], ORIGIN], axis=1)
AFFINE = np.diag([-1, -1, 1, 1]) @ AFFINE
SHAPE = (18, 20, 5)  # columns, rows, slices


def write_series(folder: Path, volume: np.ndarray, study: str | None = None, **more: object) -> str:
    """Write CT slices (Z, rows, columns), the last one first; return the SeriesInstanceUID."""
    folder.mkdir(parents=True, exist_ok=True)
    series, frame = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    study = study or pydicom.uid.generate_uid()
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
        for name, value in more.items():
            setattr(image, name, value)
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        image.save_as(folder / f"{series}_{k}.dcm", enforce_file_format=True)
    return series


def write_phantom(folder: Path, **more: object) -> str:
    """Write a series of noise with a bright block; return the SeriesInstanceUID."""
    volume = np.random.default_rng(0).normal(-700, 50, SHAPE[::-1])
    volume[2, 4:9, 3:7] += 700
    return write_series(folder, volume, **more)


def write_maps(case: Path, *, classes: int = 1, draws: int = 3) -> dict[str, np.ndarray]:
    """Write maps of the phantom, random ones of so many foreground classes; return them, (columns, rows, slices, ...)."""
    case.mkdir(parents=True)
    generator = np.random.default_rng(1)
    shape = SHAPE if classes == 1 else (*SHAPE, classes)
    maps = {
        "segmentation": generator.integers(0, classes + 1, SHAPE).astype(np.uint8),
        "draws": generator.integers(0, classes + 1, (*SHAPE, draws)).astype(np.uint8),
        "mean": generator.random(shape, dtype=np.float32),
        "entropy": generator.random(SHAPE, dtype=np.float32),
        "mutual_information": generator.random(SHAPE, dtype=np.float32),
    }
    maps["draws"][..., 0] = 0  # a draw may be empty
    for name, values in maps.items():
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), case / f"{case.name}_{name}.nii.gz")
    return maps
