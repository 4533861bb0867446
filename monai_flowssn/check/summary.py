"""The cases of a data set in numbers, and what lies in two of its lists."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from monai_flowssn.check.cases import CaseFacts
from monai_flowssn.data.entries import LISTS

__all__ = ["differences", "leaks", "summary"]

SHOWN = 12  # values of the masks
PERCENTILES = (0.5, 25, 50, 75, 99.5)


def leaks(cases: Iterable[CaseFacts]) -> list[str]:
    """Say which patients, images and names are in two lists, or twice in one.

    Args:
        cases: of all lists.
    """
    patients, images = defaultdict(set), defaultdict(list)
    names: Counter[str] = Counter()
    for case in cases:
        patients[case.entry.patient].add(case.entry.part)
        images[case.digest].append(case.entry)
        names[case.entry.case] += 1
    found = [
        f"patient {patient} is in the lists {' and '.join(sorted(parts))}"
        for patient, parts in patients.items()
        if len(parts) > 1
    ]
    for same in images.values():
        if len(same) > 1:
            where = ", ".join(f"{entry.case} ({entry.part})" for entry in same)
            found.append(f"one image {len(same)} times: {where}")
    return found + [f"{times} cases are named {name}" for name, times in names.items() if times > 1]


def differences(cases: Sequence[CaseFacts]) -> list[str]:
    """Say in what cases differ that one network must find the same in all.

    Args:
        cases: of all lists.
    """
    counts = {
        "channels": Counter(case.channels for case in cases),
        "spatial axes": Counter(len(case.size) for case in cases),
    }
    return [
        f"images have {_counted(each.elements())} {name}; all need as many"
        for name, each in counts.items()
        if len(each) > 1
    ]


def summary(cases: Sequence[CaseFacts]) -> str:
    """Return the lines that tell what the cases are like.

    Args:
        cases: of all lists; at least one.
    """
    return "\n".join(f"{name + ':':18} {about}" for name, about in _lines(cases))


def _lines(cases: Sequence[CaseFacts]) -> Iterator[tuple[str, str]]:
    for part in LISTS.values():
        here = [case for case in cases if case.entry.part == part]
        if here:
            patients = len({case.entry.patient for case in here})
            unmarked = sum(not case.values for case in here)
            yield (
                part,
                f"{len(here)} cases of {patients} patients" + (f", {unmarked} without any mask" if unmarked else ""),
            )
    yield "channels", _counted(case.channels for case in cases)
    yield "size", _range([case.size for case in cases])
    yield "spacing in mm", _range([case.spacing for case in cases]) + _unknown(cases)
    pooled = np.concatenate([case.intensities for case in cases])
    told = "  ".join(f"{p:g} %: {v:.4g}" for p, v in zip(PERCENTILES, np.nanpercentile(pooled, PERCENTILES)))
    low, high = min(case.low for case in cases), max(case.high for case in cases)
    yield "intensities", f"{low:.4g} to {high:.4g};  {told}"
    marked = [case for case in cases if case.values]
    if not marked:
        yield "masks", "none"
        return
    yield "raters of a case", _counted(sum(each is not None for each in case.empty) for case in cases)
    totals = sum((case.values for case in marked), Counter())
    among = sum(totals.values())
    for k, value in enumerate(sorted(totals)[:SHOWN]):
        share = f"{totals[value] / among:.2%} of the pixels"
        yield f"value {value:g}", f"class {k}{' (background)' if k == 0 else ''}, {share}"
    if len(totals) > SHOWN:
        yield "and more", f"{len(totals)} values in all; a lossy format (JPEG) makes many of few"
    for rater in range(max(len(case.empty) for case in marked)):
        column = [case.empty[rater] for case in marked if len(case.empty) > rater]
        drawn = [empty for empty in column if empty is not None]
        empty = f"{np.mean(drawn):.0%} of them empty" if drawn else "no mask"
        yield f"rater {rater}", f"{len(drawn)} masks, {empty}"
    yield "raters' IoU", f"{_mean([case.iou for case in marked])} of two raters (two empty masks: 1)"
    yield "raters' HM-IoU", f"{_mean([case.hm_iou for case in marked])} of one half of the raters with the other"
    extents = [case.extent for case in marked if case.extent]
    if extents:
        yield "marked region", _range(extents) + " pixels"


def _counted(values: Iterable[int]) -> str:
    counts = sorted(Counter(values).items())
    return str(counts[0][0]) if len(counts) == 1 else ", ".join(f"{value} ({times} cases)" for value, times in counts)


def _range(rows: Sequence[tuple[float, ...]]) -> str:
    """Least, median and greatest along each axis; by number of axes."""
    told = []
    for axes in sorted({len(row) for row in rows}):
        array = np.array([row for row in rows if len(row) == axes])
        low, middle, high = (
            "x".join(f"{v:g}" for v in each) for each in (array.min(0), np.median(array, axis=0), array.max(0))
        )
        told.append(low if low == high else f"{low} to {high}, median {middle}")
    return "; ".join(told)


def _unknown(cases: Sequence[CaseFacts]) -> str:
    unknown = sum(set(case.spacing) == {1.0} for case in cases)
    return f" (1 where the file does not say it: {unknown} cases)" if unknown else ""


def _mean(values: Sequence[float]) -> str:
    return "-" if np.isnan(values).all() else f"{np.nanmean(values):.3f}"
