"""NIfTI, NRRD, MetaImage and DICOM: whether a pixel lies and measures what the file says."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
from dicom_files import write_series, write_slice
from fuzz.judge import Input, read
from fuzz.pictures import Rng, case

from monai_flowssn.transforms.summary import pixel_size


def rotation(rng: Rng, dimensions: int) -> np.ndarray:
    """A random rotation (3, 3), in the plane for two dimensions."""
    matrix, upper = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))
    matrix = matrix * np.sign(np.diag(upper))
    if np.linalg.det(matrix) < 0:
        matrix[:, 0] *= -1
    whole = np.eye(3)
    whole[:dimensions, :dimensions] = matrix
    return whole


def affine(rng: Rng, dimensions: int) -> np.ndarray:
    """An oblique affine (4, 4) whose third axis is thick in 2-D too."""
    whole = np.eye(4)
    whole[:3, :3] = rotation(rng, dimensions) @ np.diag(rng.uniform([0.3, 0.3, 1.5], [1.5, 1.5, 6]))
    whole[:3, 3] = rng.normal(0, 50, 3)
    return whole


def arrays(rng: Rng, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(rng.integers(4, 12, dimensions).tolist())
    mask = rng.integers(0, 2, shape, dtype=np.uint8)
    mask.flat[:2] = 0, 1
    return rng.normal(0, 500, shape).astype(np.float32), mask


def nifti(path: Path, array: np.ndarray, where: np.ndarray | None) -> str:
    nibabel.save(nibabel.Nifti1Image(array, where), path)
    return str(path)


def measures(mask: np.ndarray, element: float) -> Any:
    """Whether a loaded case holds a mask and its area or volume in mm is right."""

    def right(item: dict[str, Any]) -> bool:
        size, unit = pixel_size(item["image"])
        found = item["label"].as_tensor().numpy()[0]
        same = np.array_equal(found, mask) and unit == f"mm^{mask.ndim}"
        return bool(same and np.isclose(size * found.sum(), element * mask.sum(), rtol=1e-4))

    return right


def element(where: np.ndarray, dimensions: int) -> float:
    return float(np.linalg.norm(where[:3, :dimensions], axis=0).prod())


def nifti_plain(rng: Rng, folder: Path) -> Input:
    dimensions = int(rng.integers(2, 4))
    (image, mask), where = arrays(rng, dimensions), affine(rng, dimensions)
    dtype = rng.choice([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
    files = nifti(folder / "i.nii.gz", image, where), nifti(folder / "m.nii.gz", mask.astype(dtype), where)
    return Input(lambda: read(case(*files)), measures(mask, element(where, dimensions)))


def nifti_elsewhere(rng: Rng, folder: Path) -> Input:
    dimensions = int(rng.integers(2, 4))
    (image, mask), where = arrays(rng, dimensions), affine(rng, dimensions)
    moved = where.copy()
    change = rng.integers(5)
    if change == 0:
        moved[:, int(rng.integers(dimensions))] *= -1
    elif change == 1:
        moved[:3, 3] += 0.6 * where[:3, int(rng.integers(dimensions))]
    elif change == 2:
        moved[:3, :3] = rotation(rng, dimensions) @ moved[:3, :3]
    elif change == 3:
        moved[:3, int(rng.integers(dimensions))] *= rng.choice([0.5, 1.3])
    files = nifti(folder / "i.nii", image, where), nifti(folder / "m.nii", mask, moved if change < 4 else None)
    return Input(lambda: read(case(*files)), None, ("c7", "m.nii"))


def nifti_channels(rng: Rng, folder: Path) -> Input:
    (image, mask), where = arrays(rng, 3), affine(rng, 3)
    apart = rng.random() < 0.5
    names = [
        nifti(folder / f"{i}.nii", image + i, where @ np.diag([-1, 1, 1, 1]) if apart and i else where)
        for i in range(2)
    ]
    item = {**case(names[0], nifti(folder / "m.nii", mask, where)), "image": names}
    return Input(lambda: read(item), None if apart else measures(mask, element(where, 3)), ("c7", "1.nii"))


def one_hot(rng: Rng, folder: Path) -> Input:
    dimensions = int(rng.integers(2, 4))
    (image, mask), where = arrays(rng, dimensions), affine(rng, dimensions)
    several = np.stack([1 - mask, mask, *[0 * mask] * int(rng.integers(2))], axis=-1)
    if dimensions == 2:
        several = several[:, :, None]
        image = image[..., None]
    files = nifti(folder / "i.nii", image, where), nifti(folder / "m.nii", several, where)
    return Input(lambda: read(case(*files)), None, ("c7", "m.nii"))


def broken_header(rng: Rng, folder: Path) -> Input:
    path = folder / "i.nii"
    nifti(path, arrays(rng, 3)[0], np.diag([0.7, 0.7, 2, 1]))
    place, value = [(280, 0.0), (280, np.nan), (80, 1.4), (284, np.inf), (296, np.nan)][rng.integers(5)]
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, place, value)  # entries of srow and pixdim
    path.write_bytes(content)
    return Input(lambda: read({"image": str(path), "case": "c7"}), None, ("c7", "i.nii"))


def other_units(rng: Rng, folder: Path) -> Input:
    image = nibabel.Nifti1Image(arrays(rng, 3)[0], affine(rng, 3))
    image.header.set_xyzt_units(str(rng.choice(["micron", "meter"])))
    nibabel.save(image, folder / "i.nii")
    return Input(lambda: read({"image": str(folder / "i.nii"), "case": "c7"}), None, ("c7", "i.nii"))


def no_numbers(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng, int(rng.integers(2, 4)))
    image.flat[int(rng.integers(image.size))] = rng.choice([np.nan, np.inf, -np.inf])
    files = nifti(folder / "i.nii", image, np.eye(4)), nifti(folder / "m.nii", mask, np.eye(4))
    return Input(lambda: read(case(*files)), None, ("c7",))


def damaged(rng: Rng, folder: Path) -> Input:
    path = folder / f"i.{rng.choice(['nii', 'nii.gz', 'nrrd', 'mha'])}"
    itk.imwrite(itk.image_from_array(arrays(rng, 3)[0]), str(path))
    path.write_bytes(path.read_bytes()[: int(rng.uniform(0, 0.9) * path.stat().st_size)])
    return Input(lambda: read({"image": str(path), "case": "c7"}), None, ("c7", path.name))


def odd_shape(rng: Rng, folder: Path) -> Input:
    shape = [(4,), (3, 3, 3, 2, 2), (3, 3, 3, 1, 2)][rng.integers(3)]
    dtype = rng.choice([np.float32, np.complex64])
    path = nifti(folder / "i.nii", np.ones(shape, dtype), np.eye(4))
    return Input(lambda: read({"image": path, "case": "c7"}), None, ("c7", "i.nii"))


def _itk(path: Path, array: np.ndarray, spacing: np.ndarray, direction: np.ndarray) -> str:
    image = itk.image_from_array(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))
    itk.imwrite(image, str(path))
    return str(path)


def itk_files(rng: Rng, folder: Path) -> Input:
    dimensions = int(rng.integers(2, 4))
    (image, mask), suffix = arrays(rng, dimensions), rng.choice(["nrrd", "mha", "nii.gz"])
    spacing, turn = rng.uniform(0.3, 2, dimensions), rotation(rng, dimensions)[:dimensions, :dimensions]
    apart = rng.random() < 0.5
    other = rotation(rng, dimensions)[:dimensions, :dimensions] if apart else turn
    files = _itk(folder / f"i.{suffix}", image, spacing, turn), _itk(folder / f"m.{suffix}", mask, spacing, other)
    right = None if apart else measures(mask, float(spacing.prod()))
    return Input(lambda: read(case(*files)), right, ("c7", f"m.{suffix}"))


def _series(rng: Rng, folder: Path, **header: Any) -> tuple[np.ndarray, float, list[Path]]:
    array = rng.integers(-1000, 1000, (int(rng.integers(5, 9)), 6, 5)).astype(np.int16)
    spacing, step = rng.uniform(0.4, 1.2, 2).round(3), round(float(rng.uniform(0.6, 5)), 2)
    turn = rotation(rng, 3)
    place = {"orientation": (*turn[:, 0], *turn[:, 1]), "step": step * turn[:, 2], **header}
    return array, float(spacing.prod()) * step, write_series(folder, array, spacing=spacing, **place)


def _read_series(folder: Path) -> Any:
    return read({"image": str(folder), "case": "c7"})


def dicom_plain(rng: Rng, folder: Path) -> Input:
    array, voxel, files = _series(rng, folder)
    for file, name in zip(files, rng.permutation(len(files))):
        file.rename(folder / f"n{name}.dcm")

    def right(item: dict[str, Any]) -> bool:
        image = item["image"]
        same = np.array_equal(image.as_tensor().numpy()[0], array.transpose(2, 1, 0))
        return bool(same and np.isclose(pixel_size(image)[0], voxel, rtol=1e-3))

    return Input(lambda: _read_series(folder), right)


def dicom_doubled(rng: Rng, folder: Path) -> Input:
    *_, files = _series(rng, folder)
    shutil.copy(files[rng.integers(len(files))], folder / "again.dcm")
    return Input(lambda: _read_series(folder), None, ("c7", "again.dcm"))


def dicom_gap(rng: Rng, folder: Path) -> Input:
    *_, files = _series(rng, folder)
    files[int(rng.integers(1, len(files) - 1))].unlink()
    return Input(lambda: _read_series(folder), None, ("c7", ".dcm"))


def dicom_tilt(rng: Rng, folder: Path) -> Input:
    angle = np.radians(rng.uniform(4, 30) * rng.choice([-1, 1]))
    header = {"orientation": (1, 0, 0, 0, np.cos(angle), np.sin(angle)), "step": (0, 0, float(rng.uniform(1.5, 5)))}
    _series(rng, folder, **header)
    return Input(lambda: _read_series(folder), None, ("c7", folder.name))


def dicom_two_series(rng: Rng, folder: Path) -> Input:
    _series(rng, folder)
    _series(rng, folder, first=50, series="1.2.3.5")
    return Input(lambda: _read_series(folder), None, ("c7", folder.name))


def dicom_scout(rng: Rng, folder: Path) -> Input:
    _series(rng, folder)
    rows = np.zeros((8, 8) if rng.random() < 0.5 else (6, 5), np.int16)
    write_slice(folder / "scout.dcm", rows, position=(0, 0, 0), orientation=(0, 1, 0, 0, 0, -1))
    return Input(lambda: _read_series(folder), None, ("c7", folder.name))


def dicom_damaged(rng: Rng, folder: Path) -> Input:
    *_, files = _series(rng, folder)
    file = files[rng.integers(len(files))]
    file.write_bytes(file.read_bytes()[: int(rng.uniform(0, 0.99) * file.stat().st_size)])
    return Input(lambda: _read_series(folder), None, ("c7",))


def dicom_no_image(rng: Rng, folder: Path) -> Input:
    modality = str(rng.choice(["SEG", "RTSTRUCT"]))
    path = write_slice(folder / "s.dcm", np.zeros((6, 5), np.int16), position=(0, 0, 0), modality=modality)
    return Input(lambda: read({"image": str(path), "case": "c7"}), None, ("c7", "s.dcm"))


def dicom_plane(rng: Rng, folder: Path) -> Input:
    rows, spacing = rng.integers(0, 99, (6, 5)).astype(np.int16), rng.uniform(0.3, 1.5, 2).round(3)
    path = write_slice(folder / "s.dcm", rows, position=rng.normal(0, 9, 3), spacing=spacing)

    def right(item: dict[str, Any]) -> bool:
        size, unit = pixel_size(item["image"])
        return item["image"].shape == (1, 5, 6) and unit == "mm^2" and bool(np.isclose(size, spacing.prod(), rtol=1e-3))

    return Input(lambda: read({"image": str(path), "case": "c7"}), right)


KINDS = {
    f"volume: {make.__name__}": make
    for make in (
        nifti_plain, nifti_elsewhere, nifti_channels, one_hot, broken_header, other_units, no_numbers, damaged, odd_shape,
        itk_files, dicom_plain, dicom_doubled, dicom_gap, dicom_tilt, dicom_two_series, dicom_scout, dicom_damaged,
        dicom_no_image, dicom_plane,
    )
}  # fmt: skip
