"""From the files of a case to its arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import Transform

from monai_flowssn.data.reading import load_case

__all__ = ["LoadCased", "OneSliced"]


class LoadCased(Transform):
    """Load the image of a case and one mask file per rater, as `data.reading.load_case` does.

    MONAI's `LoadImaged` stacks a list of files too, but takes the colours of an RGB mask for more raters, and looks neither at
    the geometry of a mask nor at that of each slice of a series.

    Args:
        series: "one" where a folder has to hold one DICOM series, or "longest" of several, which a warning names.
    """

    def __init__(self, *, series: str = "one") -> None:
        self.series = series

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with image (C, *S) float32 and label (R, *S), in the values of the files."""
        return load_case(data, series=self.series)


class OneSliced(Transform):
    """Take a volume of one slice for an image of two dimensions, which a 2-D network is trained on; others stay as they are.

    Args:
        keys: those of image (C, *S) and masks (R, *S).
    """

    def __init__(self, keys: Sequence[Hashable]) -> None:
        self.keys = keys

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with (C, x, y) of (C, x, y, 1)."""
        found = {key: data[key] for key in self.keys if key in data}
        flat = all(each.ndim == 4 and each.shape[-1] == 1 for each in found.values())
        return {**data, **({key: each[..., 0] for key, each in found.items()} if flat else {})}
