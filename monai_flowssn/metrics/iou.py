"""Pairwise IoU, the single primitive of the set metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from monai_flowssn.annotations import annotated_raters, check_labels
from monai_flowssn.metrics.masks import check_raters, check_same_grid
from monai_flowssn.options import check_option

# IoU of two empty masks under each convention of the field.
EMPTY = {"one": 1.0, "drop": float("nan"), "zero": 0.0}

# Elements of the float copy of the masks that are alive at once (64 MiB). It also keeps the pixels of a product
# below 2**24, so that a float32 sum of zeros and ones stays exact.
_CHUNK = 2**24


def pairwise_iou(
    a: Tensor, b: Tensor, *, num_classes: int = 2, empty: str = "one", include_background: bool = False
) -> Tensor:
    """IoU of every map in one stack with every map in another, per class.

    The intersections of binary masks are inner products, so each class costs one matrix product,
    ``|A ∩ B| = A Bᵀ`` over flattened pixels, and ``|A ∪ B| = |A| + |B| - |A ∩ B|``. It is exact, and pixels are taken
    in chunks, so that memory does not grow with the image.

    Args:
        a: label maps (B, N, *S); -1 everywhere = missing.
        b: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        empty: the value of a pair of empty masks: ``"one"``, ``"zero"``, or ``"drop"`` (NaN).
        include_background: count class 0 as well.

    Returns:
        (B, N, R, classes), float32, classes 1 to K - 1 or all K; NaN where a map is missing.

    Example:
        >>> a, b = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 1, 1, 1], [0, 0, 0, 0]]])
        >>> pairwise_iou(a, b)[0, 0, :, 0]
        tensor([0.5000, 0.0000])
    """
    check_option("empty", empty, list(EMPTY))
    a, b = check_labels(a, "a", num_classes), check_labels(b, "b", num_classes)
    check_same_grid(a, b, "a and b")
    iou = _fill(_iou(zip(a.flatten(2), b.flatten(2), strict=True), _classes(num_classes, include_background)), empty)
    both = annotated_raters(a)[:, :, None] & annotated_raters(b)[:, None, :]
    return iou.masked_fill(~both[..., None], float("nan"))


class IoUTable(NamedTuple):
    """Every IoU that the set metrics of a batch need, computed once and before any convention is chosen.

    Args:
        draws: draws x draws (B, N, N, classes), NaN where both masks are empty.
        cross: draws x raters (B, N, R, classes), likewise.
        raters: raters x raters (B, R, R, classes), likewise.
        annotated: which raters are there (B, R).
    """

    draws: Tensor
    cross: Tensor
    raters: Tensor
    annotated: Tensor

    def first(self, n: int) -> IoUTable:
        """The table of the first n draws."""
        return self._replace(draws=self.draws[:, :n, :n], cross=self.cross[:, :n])

    def class_means(self, empty: str) -> tuple[Tensor, Tensor, Tensor]:
        """IoU of each pair, averaged over the classes that count, under one convention for empty masks.

        Args:
            empty: ``"one"``, ``"zero"`` or ``"drop"``.

        Returns:
            Draws x draws (B, N, N), draws x raters (B, N, R) and raters x raters (B, R, R); NaN where a rater is
            missing or the pair is dropped.
        """
        check_option("empty", empty, list(EMPTY))
        missing = ~self.annotated
        draws, cross, raters = (_fill(iou, empty).nanmean(-1) for iou in self[:3])
        cross = cross.masked_fill(missing[:, None, :], float("nan"))
        return draws, cross, raters.masked_fill(missing[:, None, :] | missing[:, :, None], float("nan"))


def iou_table(draws: Tensor, raters: Tensor, *, num_classes: int = 2, include_background: bool = False) -> IoUTable:
    """Compute the IoU table of draws and raters from one product of the stacked maps with themselves.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        include_background: count class 0 as well.

    Returns:
        The table; GED, diversity, HM-IoU and average IoU are cheap functions of it.
    """
    draws = check_labels(draws, "draws", num_classes, may_miss=False)
    raters, annotated = check_raters(raters, num_classes)
    check_same_grid(draws, raters, "draws and raters")
    n = draws.shape[1]
    stacks = (torch.cat(maps) for maps in zip(draws.flatten(2), raters.flatten(2), strict=True))
    iou = _iou(((x, x) for x in stacks), _classes(num_classes, include_background))
    return IoUTable(iou[:, :n, :n], iou[:, :n, n:], iou[:, n:, n:], annotated)


def _classes(num_classes: int, include_background: bool) -> range:
    return range(0 if include_background else 1, num_classes)


def _fill(iou: Tensor, empty: str) -> Tensor:
    return iou.nan_to_num(EMPTY[empty])


def _iou(cases: Iterable[tuple[Tensor, Tensor]], classes: range) -> Tensor:
    """IoU (B, N, R, classes) of cases of maps (N, P) and (R, P), NaN where both masks are empty (0 / 0)."""
    # Case by case, so that memory does not grow with the batch.
    return torch.stack([torch.stack([_class_iou(x, y, c) for c in classes], -1) for x, y in cases])


def _class_iou(x: Tensor, y: Tensor, label: int) -> Tensor:
    """IoU (N, R) of one class of one case, from maps (N, P) and (R, P)."""
    inter = torch.zeros(len(x), len(y), dtype=torch.int64, device=x.device)
    area_x, area_y = inter.new_zeros(len(x)), inter.new_zeros(len(y))
    step = max(1, _CHUNK // (len(x) + len(y)))
    # Autocast would round the counts to its 8 or 11 bits.
    with torch.autocast(x.device.type, enabled=False):
        for start in range(0, x.shape[1], step):
            part = slice(start, start + step)
            fx, fy = _marked(x[:, part] == label, None if y is x else y[:, part] == label)
            inter += (fx @ fy.T).long()
            area_x += fx.sum(1).long()
            area_y += fy.sum(1).long()
    return inter / (area_x[:, None] + area_y - inter)


def _marked(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Float copies of masks (N, P) and (R, P), of the pixels that any of them marks: a few percent in most data."""
    # amax over bytes is vectorised, any over booleans is not.
    used = x.view(torch.uint8).amax(0) if y is None else torch.cat([x, y]).view(torch.uint8).amax(0)
    index = used.nonzero()[:, 0]
    fx = x.index_select(1, index).float()
    return fx, fx if y is None else y.index_select(1, index).float()
