"""Read the cases of a datalist, each once, and keep what is worth telling."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_flowssn.data.entries import LISTS, case_of, load_lists, patient_of
from monai_flowssn.data.reading import load_case
from monai_flowssn.metrics import compute_hm_iou, pairwise_iou

__all__ = ["CaseFacts", "Entry", "describe", "entries", "read"]

SAMPLE = 4096  # intensities of a case that percentiles are computed of


@dataclass(frozen=True)
class Entry:
    """One entry of a datalist, with whole paths; ``labels`` has None where a rater did not annotate it."""

    part: str
    case: str
    patient: str
    image: str | list[str]
    labels: tuple[str | None, ...]


@dataclass(frozen=True)
class CaseFacts:
    """What is told of a case.

    Args:
        entry: where it comes from.
        channels: C.
        size: *S.
        spacing: of the pixels in mm; all 1 where the file does not say it.
        intensities: some of them, drawn evenly (SAMPLE,).
        low: the least of all.
        high: the greatest.
        digest: of the image's voxels.
        values: how often each value stands in the masks.
        empty: for each rater, whether nothing is marked; None for a rater who did not annotate the case.
        iou: mean IoU of two raters' foregrounds, two empty masks counting 1; NaN with one rater.
        hm_iou: Hungarian-matched IoU of one half of the raters with the other, mean over all halvings.
        extent: of the smallest box around what anybody marked, in pixels; None if nobody did.
        faults: what training would stumble on.
    """

    entry: Entry
    channels: int
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    intensities: np.ndarray
    low: float
    high: float
    digest: str
    values: Counter[float] = field(default_factory=Counter)
    empty: tuple[bool | None, ...] = ()
    iou: float = float("nan")
    hm_iou: float = float("nan")
    extent: tuple[int, ...] | None = None
    faults: tuple[str, ...] = ()


def entries(path: str | Path) -> list[Entry]:
    """List the entries of a datalist (:func:`monai_flowssn.data.datalist` says what stands in it).

    Raises:
        ValueError: if the file is none, or an entry is not sound in itself.
    """
    path = Path(path)
    lists = load_lists(path)
    found = [_entry(part, each, path) for part in LISTS.values() for each in lists.get(part, [])]
    if not found:
        raise ValueError(f"{path} has no entries; list some under {', '.join(LISTS.values())}.")
    return found


def _entry(part: str, entry: Mapping[str, Any], path: Path) -> Entry:
    image, label = entry["image"], entry.get("label") or []
    whole = [str(path.parent / each) for each in image] if isinstance(image, list) else str(path.parent / image)
    labels = [label] if isinstance(label, str) else label
    masks = tuple(str(path.parent / each) if each else None for each in labels)
    return Entry(part, case_of(entry, path), patient_of(entry, path), whole, masks)


def read(entry: Entry) -> dict[Any, Any]:
    """Return the item of an entry: image (C, *S) and, where anybody annotated it, label (R, *S).

    Raises:
        ValueError: if a file does not load, or a mask does not lie on its image.
    """
    item: dict[Any, Any] = {"image": entry.image, "case": entry.case}
    return load_case({**item, "label": list(entry.labels)} if any(entry.labels) else item)


def describe(entry: Entry, item: Mapping[Any, Any]) -> CaseFacts:
    """Return what is told of a case.

    Args:
        entry: of the datalist.
        item: what :func:`read` returned.
    """
    image = item["image"]
    array = np.asarray(image)
    flat = array.reshape(-1)
    chosen = np.random.default_rng(0).integers(flat.size, size=SAMPLE)
    finite = bool(np.isfinite(flat).all())
    about: dict[str, Any] = {
        "entry": entry,
        "channels": array.shape[0],
        "size": array.shape[1:],
        "spacing": tuple(round(float(mm), 4) for mm in image.pixdim[: array.ndim - 1]),
        "intensities": flat[chosen].astype(np.float32),
        "low": float(np.nanmin(flat)),
        "high": float(np.nanmax(flat)),
        "digest": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
    }
    faults = [] if finite else ["the image has NaN or infinite values"]
    if about["low"] == about["high"]:
        faults.append(f"all of the image is {about['low']:g}")
    if "label" not in item:
        return CaseFacts(**about, empty=(None,) * len(entry.labels), faults=tuple(faults))
    label = torch.as_tensor(np.asarray(item["label"]))  # (R, *S)
    there = [path is not None for path in entry.labels]
    drawn = label[torch.tensor(there)]
    values = dict(zip(*(each.tolist() for each in drawn.unique(return_counts=True))))
    if any(value != round(value) for value in values):
        faults.append("a mask holds values that are no class ids: threshold soft masks, resample by nearest neighbour")
    background = 0 if 0 in values else min(values)
    foreground = (drawn != background).to(torch.uint8)
    marked = iter(foreground.flatten(1).any(1).tolist())
    return CaseFacts(
        **about,
        values=Counter(values),
        empty=tuple(not next(marked) if each else None for each in there),
        iou=_mean_iou(foreground),
        hm_iou=_halves_hm_iou(foreground),
        extent=_extent(foreground.any(0)),
        faults=tuple(faults),
    )


def _mean_iou(masks: Tensor) -> float:
    """Mean IoU of two of the masks (R, *S), those of nothing counting 1; NaN of one mask."""
    pairs = torch.triu_indices(len(masks), len(masks), 1)
    return float(pairwise_iou(masks[None], masks[None])[0, pairs[0], pairs[1], 0].mean())


def _halves_hm_iou(masks: Tensor) -> float:
    """Hungarian-matched IoU (Kohl et al. 2019) of R // 2 of the masks (R, *S) with as many others, mean over all choices.

    Of more than eight masks the first eight, because the choices grow fast.
    """
    masks = masks[:8]
    half, raters = len(masks) // 2, range(len(masks))
    if not half:
        return float("nan")
    found = []
    for first in itertools.combinations(raters, half):
        rest = [rater for rater in raters if rater not in first]
        for second in itertools.combinations(rest, half):
            if first < second:
                found.append(float(compute_hm_iou(masks[list(first)][None], masks[list(second)][None])))
    return float(np.mean(found))


def _extent(marked: Tensor) -> tuple[int, ...] | None:
    """Size of the smallest box around what is marked (*S)."""
    if not marked.any():
        return None
    places = marked.nonzero()
    return tuple((places.max(0).values - places.min(0).values + 1).tolist())
