"""From the files of a case to its arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

from monai_flowssn.data.reading import load_case

__all__ = ["LoadCased"]


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
