"""Cases that would spoil training or metrics are refused, by name."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor

from monai_flowssn.annotations import MISSING, annotated_raters, check_classes, comparable
from monai_flowssn.data.cases import case_title
from monai_flowssn.data.geometry import check_same_place, whole_affine

__all__ = ["CheckCased"]


class CheckCased(Transform):
    """Refuse a case that would spoil training or metrics, by name; else return its label as class ids.

    Args:
        num_classes: K; class ids are 0 to K - 1, and -1 everywhere for a rater who did not annotate the case.
        class_values: what the masks hold for class 0, 1, ..., K values such as [0, 255]; none where they hold the class ids.
        intensity_range: lowest and highest intensity that will be told apart; an image that lies outside as a whole is refused,
            the first that does by nine tenths or more told in a warning.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_values: Sequence[float] = (),
        intensity_range: Sequence[float] | None = None,
    ) -> None:
        check_classes(num_classes)
        values = list(class_values)
        if values and (len(set(values)) != num_classes or len(values) != num_classes or MISSING in values):
            raise ValueError(
                f"Got class_values={values}, num_classes={num_classes}; give one value for each class, none twice and none -1 "
                "(not annotated), beginning with the background."
            )
        if intensity_range is not None and not intensity_range[0] < intensity_range[1]:
            raise ValueError(f"Got intensity_range={list(intensity_range)}; the first must be below the second.")
        self.num_classes, self.class_values, self.intensity_range = num_classes, values, intensity_range
        self._warned = False
        self.dtype = torch.int8 if num_classes <= 128 else torch.int16

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check image (C, *S) and label (R, *S); an item without label (inference) passes."""
        item, name = dict(data), case_title(data)
        image = item["image"].as_subclass(Tensor)
        if image.is_floating_point() and not bool(torch.isfinite(image).all()):
            raise ValueError(f"{name}: the image has NaN or infinite values; correct or remove the case.")
        if self.intensity_range is not None:
            self._check_range(image, name)
        if "label" in item:
            _check_grid(item["label"], item["image"], name)
            ids = self._class_ids(comparable(item["label"].as_subclass(Tensor)), name)
            annotated_raters(ids[None], needed=True, cases=[name])
            label, ids = item["label"], ids.to(self.dtype)
            item["label"] = MetaTensor(ids, meta=label.meta) if isinstance(label, MetaTensor) else ids
        return item

    def _check_range(self, image: Tensor, name: str) -> None:
        low, high = self.intensity_range or (0, 0)
        outside = (image < low) | (image > high)
        share = outside.float().mean().item()
        if share < 0.9:
            return
        said = (
            f"{name}: {share:.0%} of the image lies outside intensity_range={[low, high]} and is clipped; its intensities "
            f"go from {image.min().item():g} to {image.max().item():g}. Give --data::intensity_range ([-1000, 400] for CT)."
        )
        if bool(outside.all()):
            raise ValueError(said)
        if not self._warned:  # once is enough
            self._warned = True
            warnings.warn(said, stacklevel=3)

    def _class_ids(self, label: Tensor, name: str) -> Tensor:
        """Return label (R, *S) as class ids, after looking at every value in its own type."""
        if not self.class_values and not label.is_floating_point() and label.numel():
            low, high = label.aminmax()
            if int(low) >= MISSING and int(high) < self.num_classes:
                return label  # as nearly always, and without counting
        values, counts = _distinct(label)
        if self.class_values:
            return self._mapped(label, values, counts, name)
        wrong = [value for value in values if not float(value).is_integer()][:5]
        if wrong:
            raise ValueError(
                f"{name}: the masks hold {wrong}, which are no class ids; threshold soft masks, and resample masks by nearest "
                "neighbour."
            )
        if values and not (values[0] >= MISSING and values[-1] < self.num_classes):
            raise ValueError(
                f"{name}: the masks hold {_listed(values, counts)}, but with num_classes={self.num_classes} class ids run from 0 "
                f"to {self.num_classes - 1} (-1: not annotated). Raise num_classes, or give what the files hold for class 0, 1, "
                "...: "
                '--data::class_values "[0, 255]".'
            )
        return label

    def _mapped(self, label: Tensor, values: list[float], counts: list[int], name: str) -> Tensor:
        others = [(v, c) for v, c in zip(values, counts) if v != MISSING and v not in self.class_values]
        if others:
            raise ValueError(
                f"{name}: the masks hold {_listed(*zip(*others))}, but class_values={self.class_values}; every value of a mask "
                "must be one of them: add the missing class (and raise num_classes), or correct the masks."
            )
        ids = torch.full(label.shape, MISSING, dtype=torch.int16)
        for index, value in enumerate(self.class_values):
            ids[label == value] = index
        return ids


def _check_grid(label: Tensor, image: Tensor, name: str) -> None:
    if label.shape[1:] != image.shape[1:]:
        raise ValueError(
            f"{name}: rater masks have size {tuple(label.shape[1:])}, the image {tuple(image.shape[1:])}; resample the masks "
            "onto the image (nearest neighbour)."
        )
    if isinstance(label, MetaTensor) and isinstance(image, MetaTensor):
        place, other = whole_affine(label.affine), whole_affine(image.affine)
        check_same_place(place, other, label.shape[1:], f"{name}: the label")


def _distinct(label: Tensor) -> tuple[list[float], list[int]]:
    """Return the values of a label in order, NaN last, and how often it holds each."""
    if not label.is_floating_point() and label.numel():
        low, high = (int(value) for value in label.aminmax())
        if high - low < 2**12:  # many times faster than sorting
            counts = torch.bincount(label.int().flatten() - low)
            found = counts.nonzero().flatten()
            return (found + low).tolist(), counts[found].tolist()
    values, numbers = label[label == label].unique(return_counts=True)
    missing = label.numel() - int(numbers.sum())  # each NaN would be a value of its own
    return values.tolist() + [float("nan")] * bool(missing), numbers.tolist() + [missing] * bool(missing)


def _listed(values: Sequence[float], counts: Sequence[int]) -> str:
    """Name values with their counts.

    >>> _listed([0, 2.5], [9, 1])
    '0 (9 pixels), 2.5 (1 pixels)'
    """
    named = [f"{value:g} ({count} pixels)" for value, count in zip(values[:9], counts)]
    return ", ".join(named) + (f" and {len(values) - 9} more" if len(values) > 9 else "")
