"""Collective insight: the three parts by which CIMD compares sets of masks."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_flowssn.metrics.iou import IoUTable, iou_table, iou_to_dice, weighted_mean
from monai_flowssn.metrics.masks import check_raters
from monai_flowssn.options import check_option


def compute_collective_insight(draws: Tensor, raters: Tensor, *, num_classes: int = 2, part: str = "ci") -> Tensor:
    """Collective insight of the draws of each case, or one of its parts, averaged over the foreground classes.

    ``CI = 3 S_c D_max D_a / (S_c + D_max + D_a)`` (Rahman et al., 2023, arXiv 2304.04745), which is 1 where all three are:

    - ``"sensitivity"``, S_c: the share of the union of the raters that the union of the draws covers; 1 where the raters are
      all empty.
    - ``"dice_max"``, D_max: the mean over raters of the best draw's Dice, 1 for two empty masks.
    - ``"agreement"``, D_a: ``1 - (|Vmin(y) - Vmin(s)| + |Vmax(y) - Vmax(s)|) / 2``, V the variance over pixels of the difference
      of two masks. It is near 1 for anything, as such variances are small, so state the parts too. Vmin counts a mask with
      itself, hence is 0.

    The paper has four draws. Weights of draws play no part: only the best and the extremes count.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        part: ``"ci"``, ``"sensitivity"``, ``"dice_max"`` or ``"agreement"``.

    Returns:
        (B,), float.

    Example:
        >>> draws, raters = torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 0]]]), torch.tensor([[[1, 1, 1, 1], [0, 0, 0, 0]]])
        >>> compute_collective_insight(draws, raters, part="sensitivity")
        tensor([0.5000])
    """
    table = iou_table(draws, raters, num_classes=num_classes)
    return collective_insight_from_table(table, draws, raters, num_classes=num_classes, part=part)


def collective_insight_from_table(
    table: IoUTable, draws: Tensor, raters: Tensor, *, num_classes: int = 2, part: str = "ci"
) -> Tensor:
    """``compute_collective_insight`` of overlaps that were computed before."""
    check_option("part", part, ["ci", "sensitivity", "dice_max", "agreement"])
    foreground = slice(1 - num_classes, None)
    values = {}
    if part in ("ci", "sensitivity"):
        values["sensitivity"] = _sensitivity(draws, check_raters(raters, num_classes)[0], num_classes)
    if part in ("ci", "dice_max"):
        values["dice_max"] = _dice_max(table.cross[..., foreground], table.annotated)
    if part in ("ci", "agreement"):
        pixels = draws[0, 0].numel()
        every = torch.ones_like(table.weights, dtype=torch.bool)
        sets = ((table.draws, table.draw_areas, every), (table.raters, table.rater_areas, table.annotated))
        ours, theirs = (_largest_variance(i[..., foreground], a[..., foreground], t, pixels) for i, a, t in sets)
        values["agreement"] = 1 - (ours - theirs).abs() / 2
    if part != "ci":
        return values[part].mean(1)
    parts = torch.stack(list(values.values()))  # (3, B, C)
    return (3 * parts.prod(0) / parts.sum(0)).mean(1)


def _sensitivity(draws: Tensor, raters: Tensor, num_classes: int) -> Tensor:
    found = []
    for c in range(1, num_classes):
        ours, theirs = ((maps == c).any(1).flatten(1) for maps in (draws, raters))
        covered = (ours & theirs).sum(1) / theirs.sum(1)
        found.append(covered.nan_to_num(1.0))
    return torch.stack(found, 1)


def _dice_max(iou: Tensor, annotated: Tensor) -> Tensor:
    """(B, C) from draws x raters (B, N, R, C)."""
    best = iou_to_dice(iou.nan_to_num(1.0)).amax(1)
    return torch.stack([weighted_mean(values, annotated.float()) for values in best.unbind(-1)], 1)


def _largest_variance(iou: Tensor, areas: Tensor, there: Tensor, pixels: int) -> Tensor:
    """Largest variance over pixels of the difference of two of the masks that are there (B, M), for each class (B, C).

    From IoU (B, M, M, C) and areas (B, M, C).
    """
    a, b = areas[:, :, None].double(), areas[:, None].double()
    i = iou.nan_to_num(0.0).double()
    square = (a + b) * (1 - i) / (1 + i) / pixels  # |A Δ B| / P, as |A ∩ B| = (|A| + |B|) IoU / (1 + IoU)
    variance = square - ((a - b) / pixels).square()
    return variance.masked_fill(~(there[:, :, None] & there[:, None])[..., None], 0).amax((1, 2)).float()
