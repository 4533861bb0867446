"""What every loader hands on: a `Case`, a dictionary whose MetaTensors MONAI can transform and save.

Spatial axes are in MONAI's order, x (columns) before y (rows), as `LoadImage` reads PNG, NIfTI and DICOM and as
`SaveImage` writes them; so arrays in memory and files read later look the same to a network, and outputs overlay inputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor

from monai_flowssn.data.geometry import check_affine

__all__ = ["Case", "case_title", "check_cases", "make_case", "pick_evenly", "safe_name", "spacing_affine"]

T = TypeVar("T")
Array = np.ndarray | torch.Tensor


def case_title(item: Mapping[Any, Any]) -> str:
    """Say which case it is, for the begin of an error."""
    image = item.get("image")
    source = (
        image if isinstance(image, (str, Path)) else getattr(image, "meta", {}).get("filename_or_obj", "without a name")
    )
    return f"Case '{item.get('case', source)}'"


def safe_name(text: str) -> str:
    """Turn any id or path into a name that survives as a file name: no folders, and no dot that looks like a suffix.

    >>> safe_name("LIDC-IDRI-0001/z-120.5_c0")
    'LIDC-IDRI-0001_z-120_5_c0'
    """
    return re.sub(r"[^\w-]+", "_", text)


class Labelled(TypedDict, total=False):
    """What a case of inference alone lacks."""

    label: MetaTensor | list[str | None]


class Case(Labelled):
    """One case, as every loader returns it: a dictionary, as MONAI's data sets and transforms take it.

    ``image`` and ``label`` are arrays in memory or files that `transforms.LoadCased` reads:

    - ``image`` (C, *S), or a file, a folder of one DICOM series, or a list of files (channels);
    - ``label`` (R, *S) class ids, -1 everywhere where a rater did not annotate the case, or one file per rater, None where not;
    - ``patient``: whom it belongs to; splits keep a patient together;
    - ``case``: its name, by which outputs are named.

    Arrays are `MetaTensor`: their geometry travels with them, as an affine (4, 4) from indices to mm and the number of spatial
    axes, ``ndim - 1``. An identity affine says that the size of a pixel is unknown. Further keys, such as a field of view, are
    left out before a batch is made.
    """

    image: MetaTensor | str | list[str]
    patient: str
    case: str


def make_case(
    image: Array, label: Array, *, patient: str, case: str, affine: Array | None = None, **more: Array
) -> Case:
    """Wrap the arrays of one case without copying them.

    Args:
        image: (C, *S) grey or colour values in 0..255, uint8 or float32.
        label: (R, *S) class id per rater.
        patient: whom the case belongs to; splits keep a patient together.
        case: unique id of the case; `SaveImage` names its outputs after it.
        affine: (4, 4) from indices to mm, `spacing_affine` where the spacing alone is known; None where nothing is.
        more: further arrays (C, *S), such as a field of view.
    """
    name, geometry = safe_name(case), torch.as_tensor(np.eye(4) if affine is None else affine, dtype=torch.float64)
    check_affine(geometry.numpy(), image.ndim - 1, f"Case '{name}'")
    meta = {"filename_or_obj": name, "original_channel_dim": 0}
    tensors = {
        key: MetaTensor(torch.as_tensor(array), affine=geometry, meta={**meta, "spatial_shape": array.shape[1:]})
        for key, array in {"image": image, "label": label, **more}.items()
    }
    return {**tensors, "patient": patient, "case": name}  # type: ignore[typeddict-item]


def spacing_affine(*spacing: float) -> np.ndarray:
    """Return the affine (4, 4) of pixels of a size in mm, one for each axis, of which nothing else is known.

    >>> spacing_affine(0.7, 0.7).diagonal().tolist()
    [0.7, 0.7, 1.0, 1.0]
    """
    return np.diag([*map(float, spacing), *[1.0] * (4 - len(spacing))])


def check_cases(items: list[Case], *, source: Path, split: str) -> list[Case]:
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
