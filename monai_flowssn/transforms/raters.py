"""One rater or all of them, and always as many."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_flowssn.annotations import MISSING, annotated_raters
from monai_flowssn.data.cases import case_title

__all__ = ["KeepRaterd", "PadRatersd"]


class KeepRaterd(MapTransform):
    """Keep the masks of one rater, to train as if there had been no other.

    Args:
        keys: items (R, *S).
        rater: index of the rater, counted from 0; None keeps all.
    """

    def __init__(self, keys: KeysCollection, *, rater: int | None = None) -> None:
        super().__init__(keys)
        self.rater = rater

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return (1, *S), or (R, *S) as it is."""
        item = dict(data)
        if self.rater is None:
            return item
        for key in self.key_iterator(item):
            kept = item[key][self.rater : self.rater + 1] if self.rater >= 0 else item[key][:0]
            if not len(kept) or not annotated_raters(kept.as_subclass(torch.Tensor)[None]).all():
                raise ValueError(
                    f"{case_title(item)} has no mask of rater {self.rater} ({len(item[key])} raters, counted from 0); choose a "
                    "rater who annotated every case, or leave the case out."
                )
            item[key] = kept
        return item


class PadRatersd(MapTransform):
    """Append masks of -1 up to a fixed number of raters, so that cases with different raters make one batch.

    Args:
        keys: items (R, *S) to pad.
        raters: their number afterwards, the largest of the data set.
        spatial_dims: of the network; masks of other dimensions make no batch for it.
    """

    def __init__(self, keys: KeysCollection, *, raters: int, spatial_dims: int) -> None:
        super().__init__(keys)
        if raters < 1:
            raise ValueError(f"Got raters={raters}; use the largest number of raters of a case, at least 1.")
        self.raters, self.spatial_dims = raters, spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return (raters, *S); unsigned types, which cannot hold -1, become int16."""
        item = dict(data)
        for key in self.key_iterator(item):
            label = item[key]
            if label.ndim != 1 + self.spatial_dims:
                raise ValueError(
                    f"{case_title(item)} has size {tuple(label.shape[1:])}, the network spatial_dims={self.spatial_dims}; "
                    "training and evaluation need the same: save slices of volumes as 2-D images, or take a 3-D network."
                )
            extra = self.raters - len(label)
            if extra < 0:
                raise ValueError(
                    f"{case_title(item)} has {len(label)} raters, but raters={self.raters}; raise `raters`."
                )
            if extra:
                label = label.to(torch.int16) if label.dtype == torch.uint8 else label
                item[key] = torch.cat([label, torch.full_like(label[:1], MISSING).expand(extra, *label.shape[1:])])
        return item
