"""What every loader hands on: one dictionary per case, with MetaTensors that MONAI can transform and save.

Spatial axes are in MONAI's order, x (columns) before y (rows), as `LoadImage` reads PNG, NIfTI and DICOM and as
`SaveImage` writes them; so arrays in memory and files read later look the same to a network, and outputs overlay inputs.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

__all__ = ["check_items", "make_item", "open_picture", "pick_evenly", "safe_name"]

T = TypeVar("T")
Array = np.ndarray | torch.Tensor


def safe_name(text: str) -> str:
    """Turn any id or path into a name that survives as a file name: no folders, and no dot that looks like a suffix.

    >>> safe_name("LIDC-IDRI-0001/z-120.5_c0")
    'LIDC-IDRI-0001_z-120_5_c0'
    """
    return re.sub(r"[^\w-]+", "_", text)


def make_item(
    image: Array, label: Array, *, patient: str, case: str, spacing: float | Sequence[float] = 1.0, **more: Array
) -> dict[str, Any]:
    """Wrap the arrays of one case without copying them.

    Args:
        image: (C, *S) grey or colour values in 0..255, uint8 or float32.
        label: (R, *S) class id per rater.
        patient: whom the case belongs to; splits keep a patient together.
        case: unique id of the case; `SaveImage` names its outputs after it.
        spacing: pixel size in mm, in the plane or of all three axes.
        more: further arrays (C, *S), such as a field of view.
    """
    case = safe_name(case)
    sizes = (spacing, spacing, 1.0) if isinstance(spacing, (int, float)) else spacing
    affine = torch.diag(torch.tensor([*sizes, 1.0], dtype=torch.float64))
    arrays = {"image": image, "label": label, **more}
    meta = {"filename_or_obj": case, "original_channel_dim": 0}
    tensors = {
        key: MetaTensor(torch.as_tensor(array), affine=affine, meta={**meta, "spatial_shape": array.shape[1:]})
        for key, array in arrays.items()
    }
    return {**tensors, "patient": patient, "case": case}


def check_items(items: list[dict[str, Any]], *, source: Path, split: str) -> list[dict[str, Any]]:
    """Return the items, or say that there are none or that two share their case id."""
    if not items:
        raise ValueError(
            f"{source} has no case for the split '{split}'; check the folder, and that the split is filled."
        )
    seen: set[str] = set()
    for item in items:
        if item["case"] in seen:
            raise ValueError(f"{source}: two cases are named '{item['case']}'; give every case its own name.")
        seen.add(item["case"])
    return items


def open_picture(path: Path) -> Image.Image:
    """Decode a picture (PNG, JPEG, GIF, TIFF, PPM, also gzipped); a file that does not decode is a `ValueError`."""
    try:
        source = BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path
        with Image.open(source) as picture:
            picture.load()
            return picture
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; unpack the archive again.") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, EOFError, zlib.error, struct.error ...
        raise ValueError(f"{path} does not decode ({error}); replace this file with a good copy.") from error


def pick_evenly(cases: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` evenly spaced cases, so that a quick run still sees the whole range of patients.

    >>> pick_evenly(range(10), 4)
    [0, 3, 6, 9]
    """
    if limit is not None and limit < 1:
        raise ValueError(f"Got limit={limit}; use a positive number of cases, or None for all of them.")
    if limit is None or limit >= len(cases):
        return list(cases)
    return [cases[i] for i in np.linspace(0, len(cases) - 1, limit).round().astype(int).tolist()]
