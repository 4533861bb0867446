"""DICOM series of CT slices to read, written with the place of each slice in its header."""

from zlib import crc32

import itk
import numpy as np


def write_slice(
    path, rows, *, position, orientation=(1, 0, 0, 0, 1, 0), spacing=(0.7, 0.7), series="1.2.3.4", modality="CT"
):
    """Write rows (y, x) int16 at a position (3,) in mm, in DICOM's LPS."""
    image = itk.image_from_array(np.ascontiguousarray(rows)[None])
    image.SetSpacing([*map(float, spacing), 1.0])
    image.SetOrigin([float(p) for p in position])
    column, row = np.array(orientation[:3], float), np.array(orientation[3:], float)
    image.SetDirection(itk.matrix_from_array(np.stack([column, row, np.cross(column, row)], axis=1)))
    tags = itk.MetaDataDictionary()
    for tag, value in {
        "0008|0060": modality, "0020|000d": "1.2.3", "0020|000e": series, "0008|0018": f"{series}.{crc32(str(path).encode())}",
        "0020|0032": "\\".join(f"{p:.6f}" for p in position), "0020|0037": "\\".join(f"{o:.6f}" for o in orientation),
    }.items():  # fmt: skip
        tags[tag] = value
    io = itk.GDCMImageIO.New()
    io.KeepOriginalUIDOn()
    image.SetMetaDataDictionary(tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.imwrite(image, str(path), imageio=io)
    return path


def write_series(folder, array, *, step=(0.0, 0.0, 2.0), first=0, **header):
    """Write (z, y, x) as slices at multiples of a step (3,) in mm."""
    return [
        write_slice(folder / f"{first + z:03d}.dcm", rows, position=np.multiply(z, step), **header)
        for z, rows in enumerate(array)
    ]
