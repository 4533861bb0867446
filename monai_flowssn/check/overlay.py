"""Options that fit a data set, as a config file that goes after a bundle's."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_flowssn.check.cases import CaseFacts

__all__ = ["Options", "suggest", "write_overlay"]

STEP = {2: 64, 3: 16}  # sizes that every method's network can halve often enough; the largest ones halve six times
LARGEST = {2: 256, 3: 96}


@dataclass(frozen=True)
class Options:
    """What a bundle has to know of a data set; the README says what each means."""

    channels: int
    num_classes: int
    class_values: list[int]
    raters: int
    intensity_range: list[float]
    spatial_dims: int
    spatial_size: list[int]
    crops: str


def suggest(cases: Sequence[CaseFacts]) -> Options:
    """Return the options that fit most cases.

    Windows (``crops: anywhere``) hold half as much again as the marked region of 19 in 20 cases; where that is most of the
    image, networks see ``whole`` images, resized. Intensities go from the 0.5th percentile to the 99.5th, or from 0 to 255.

    Args:
        cases: of which at least one has masks.

    Raises:
        ValueError: if none has, or all masks hold one value.
    """
    marked = [case for case in cases if case.values]
    values = sorted({round(value) for case in marked for value in case.values})
    if len(values) < 2:
        raise ValueError(f"the masks hold {values or 'nothing'}; a class and a background are needed.")
    dims = Counter(map(_dims, cases)).most_common(1)[0][0]
    alike = [case for case in cases if _dims(case) == dims]
    size = np.median([case.size[:dims] for case in alike], axis=0)
    extents = [case.extent[:dims] for case in alike if case.extent]
    wanted = 1.5 * np.quantile(extents, 0.95, axis=0)
    whole = dims == 2 and bool((wanted >= 0.75 * size).all())
    wanted = size if whole else wanted
    wanted[:2] = wanted[:2].max()  # augmentation turns the plane
    return Options(
        channels=Counter(case.channels for case in cases).most_common(1)[0][0],
        num_classes=len(values),
        class_values=[] if values == list(range(len(values))) else values,
        raters=max(len(case.empty) for case in marked),
        intensity_range=_intensities(cases),
        spatial_dims=dims,
        spatial_size=[_fit(each, dims) for each in wanted],
        crops="whole" if whole else "anywhere",
    )


def _dims(case: CaseFacts) -> int:
    """Return 2 for a volume of one slice, which a 2-D network takes, too."""
    return 2 if case.size[2:] in ((), (1,)) else 3


def _fit(wanted: float, dims: int) -> int:
    step = STEP[dims]
    return min(max(step, math.ceil(wanted / step) * step), LARGEST[dims])


def _intensities(cases: Sequence[CaseFacts]) -> list[float]:
    if min(case.low for case in cases) >= 0 and 1 < max(case.high for case in cases) <= 255:
        return [0, 255]
    pooled = np.concatenate([case.intensities for case in cases])
    low, high = (float(f"{value:.3g}") for value in np.nanpercentile(pooled, [0.5, 99.5]))
    return [low, high] if low < high else [min(case.low for case in cases), max(case.high for case in cases)]


def write_overlay(path: Path, options: Options, *, datalist: Path, template: Path) -> None:
    """Write options as a config file.

    Args:
        path: the file to write.
        options: those of the data set.
        datalist: its JSON.
        template: ``configs/data/datalist.yaml``, whose ids get these values.
    """
    known: Mapping[str, Any] = {
        "datalist_file": str(datalist.resolve()),
        "channels": options.channels,
        "num_classes": options.num_classes,
        "class_values": options.class_values,
        "raters": options.raters,
        "intensity_range": options.intensity_range,
        "crops": options.crops,
    }
    lines = template.read_text(encoding="utf-8").splitlines()[1:]
    for number, line in enumerate(lines):
        name = re.match(r"(\s*)(\w+):", line)
        if name and name[2] in known:
            lines[number] = f"{name[1]}{name[2]}: {json.dumps(known[name[2]])}"
    lines.append(f"spatial_size: {json.dumps(options.spatial_size)}")
    first = "# By monai-flowssn check. Change what does not fit, and name this file after a bundle's, the last of all."
    path.write_text("\n".join([first, *lines]) + "\n", encoding="utf-8")
