"""Pairwise IoU, the single primitive of the set metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from monai_flowssn.annotations import annotated_raters, check_labels
from monai_flowssn.metrics.masks import check_raters, check_same_grid, draw_weights
from monai_flowssn.options import check_option

# IoU of two empty masks under each convention of the field.
EMPTY = {"one": 1.0, "drop": float("nan"), "zero": 0.0, "drop_case": float("nan")}

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
    cases = zip(a.flatten(2), b.flatten(2), strict=True)
    iou = _fill(_overlaps(cases, _classes(num_classes, include_background))[0], empty)
    both = annotated_raters(a)[:, :, None] & annotated_raters(b)[:, None, :]
    return iou.masked_fill(~both[..., None], float("nan"))


class IoUTable(NamedTuple):
    """Every overlap that the set metrics of a batch need, computed once and before any convention is chosen.

    Args:
        draws: IoU of draws x draws (B, N, N, classes), NaN where both masks are empty.
        cross: of draws x raters (B, N, R, classes), likewise.
        raters: of raters x raters (B, R, R, classes), likewise.
        draw_areas: pixels of each draw (B, N, classes).
        rater_areas: pixels of each rater (B, R, classes), 0 where missing.
        annotated: which raters are there (B, R).
        weights: probability of each draw (B, N).
    """

    draws: Tensor
    cross: Tensor
    raters: Tensor
    draw_areas: Tensor
    rater_areas: Tensor
    annotated: Tensor
    weights: Tensor

    def first(self, n: int) -> IoUTable:
        """The table of the first n draws."""
        return self._replace(
            draws=self.draws[:, :n, :n],
            cross=self.cross[:, :n],
            draw_areas=self.draw_areas[:, :n],
            weights=draw_weights(self.weights[:, :n], self.draw_areas[:, :n]),
        )

    def class_means(self, empty: str) -> tuple[Tensor, Tensor, Tensor]:
        """IoU of each pair, averaged over the classes that count, under one convention for empty masks.

        Args:
            empty: ``"one"``, ``"zero"``, ``"drop"``: the class is left out of a pair, and the pair where none is left, or
                ``"drop_case"``: the class is left out, and the whole case where a pair has none left.

        Returns:
            Draws x draws (B, N, N), draws x raters (B, N, R) and raters x raters (B, R, R); NaN where a rater is
            missing or the pair is dropped.
        """
        check_option("empty", empty, list(EMPTY))
        there = self.annotated
        every = torch.ones_like(self.weights, dtype=torch.bool)
        tables = zip(self[:3], [(every, every), (every, there), (there, there)], strict=True)
        return tuple(_class_mean(iou, empty, rows, columns) for iou, (rows, columns) in tables)  # type: ignore[return-value]

    def pair_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """What each pair of two draws, of draw and rater, and of two raters counts: (B, N, N), (B, N, R), (B, R, R)."""
        w, r = self.weights, self.rater_weights
        return w[:, :, None] * w[:, None], w[:, :, None] * r[:, None], r[:, :, None] * r[:, None]

    @property
    def rater_weights(self) -> Tensor:
        """(B, R), equal for those who annotated, summing to 1."""
        return self.annotated / self.annotated.sum(1, keepdim=True)


def iou_table(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    include_background: bool = False,
    weights: Tensor | None = None,
) -> IoUTable:
    """Compute the IoU table of draws and raters from one product of the stacked maps with themselves.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        include_background: count class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        The table; GED, diversity, HM-IoU, Dice, areas and existence are cheap functions of it.
    """
    draws = check_labels(draws, "draws", num_classes, may_miss=False)
    raters, annotated = check_raters(raters, num_classes)
    check_same_grid(draws, raters, "draws and raters")
    n = draws.shape[1]
    stacks = (torch.cat(maps) for maps in zip(draws.flatten(2), raters.flatten(2), strict=True))
    iou, areas = _overlaps(((x, x) for x in stacks), _classes(num_classes, include_background))
    return IoUTable(
        draws=iou[:, :n, :n],
        cross=iou[:, :n, n:],
        raters=iou[:, n:, n:],
        draw_areas=areas[:, :n],
        rater_areas=areas[:, n:],
        annotated=annotated,
        weights=draw_weights(weights, draws),
    )


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean over all axes but the first, without the entries that are NaN; NaN where none is left.

    Args:
        values: (B, ...).
        weights: (B, ...), not negative.

    Returns:
        (B,).
    """
    weights = weights.masked_fill(values.isnan(), 0).flatten(1)
    return (values.nan_to_num().flatten(1) * weights).sum(1) / weights.sum(1)


def iou_to_dice(iou: Tensor) -> Tensor:
    """``2 |A ∩ B| / (|A| + |B|)`` from ``|A ∩ B| / |A ∪ B|``."""
    return 2 * iou / (1 + iou)


def _classes(num_classes: int, include_background: bool) -> range:
    return range(0 if include_background else 1, num_classes)


def _fill(iou: Tensor, empty: str) -> Tensor:
    return iou.nan_to_num(EMPTY[empty])


def _class_mean(iou: Tensor, empty: str, rows: Tensor, columns: Tensor) -> Tensor:
    """Mean over the classes of IoU (B, M, L, classes), NaN for the pairs of missing maps."""
    mean = _fill(iou, empty).nanmean(-1)
    there = rows[:, :, None] & columns[:, None]
    if empty == "drop_case":
        mean = mean.masked_fill((mean.isnan() & there).any((1, 2), keepdim=True), float("nan"))
    return mean.masked_fill(~there, float("nan"))


def _overlaps(cases: Iterable[tuple[Tensor, Tensor]], classes: range) -> tuple[Tensor, Tensor]:
    """IoU (B, N, R, classes), NaN where both are empty (0 / 0), and areas (B, N, classes) of maps (N, P) and (R, P)."""
    # Case by case, so that memory does not grow with the batch.
    found = [zip(*(_class_overlap(x, y, c) for c in classes)) for x, y in cases]
    iou, areas = zip(*([torch.stack(part, -1) for part in case] for case in found))
    return torch.stack(iou), torch.stack(areas)


def _class_overlap(x: Tensor, y: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """IoU (N, R) of one class of one case, and the areas (N,) of the first, from maps (N, P) and (R, P)."""
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
    return inter / (area_x[:, None] + area_y - inter), area_x


def _marked(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Float copies of masks (N, P) and (R, P), of the pixels that any of them marks: a few percent in most data."""
    # amax over bytes is vectorised, any over booleans is not.
    used = x.view(torch.uint8).amax(0) if y is None else torch.cat([x, y]).view(torch.uint8).amax(0)
    index = used.nonzero()[:, 0]
    fx = x.index_select(1, index).float()
    return fx, fx if y is None else y.index_select(1, index).float()
