"""Dice, under each of the four names by which the field calls it."""

from __future__ import annotations

from torch import Tensor

from monai_flowssn.annotations import check_labels
from monai_flowssn.metrics.iou import pairwise_iou
from monai_flowssn.metrics.masks import check_raters, check_same_grid, majority_vote, modal_label
from monai_flowssn.options import check_option

# What each kind does with two empty masks, in the papers that use it.
EMPTY_OF_KIND = {"majority": "one", "per_rater": "drop", "expected": "one", "single": "one"}


def compute_dice(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    kind: str = "majority",
    rater: int = 0,
    empty: str | None = None,
    mean: Tensor | None = None,
    include_background: bool = False,
) -> Tensor:
    """Dice between draws and raters of each case, ``2 |A ∩ B| / (|A| + |B|)`` averaged over the classes.

    - ``"majority"``: the mean draw against the strict majority of the raters (a tie is background). Flow-SSN.
    - ``"per_rater"``: the mean draw against each rater, averaged. The SSN and PHiSeg rows of published tables.
    - ``"expected"``: averaged over all pairs of a draw and a rater. Joint Probabilistic U-Net.
    - ``"single"``: the mean draw against one rater; NaN where that rater is missing. cFlow Net.

    The label map of the mean draw is the argmax of the mean probability where ``mean`` is given, as in the papers, and
    otherwise the most frequent label of each pixel over the draws; on a tie, the lowest class id.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        kind: one of the four above.
        rater: the index of the rater for ``"single"``.
        empty: Dice of two empty masks: ``"one"``, ``"zero"`` or ``"drop"`` (left out); by default the convention of
            the kind: ``"drop"`` for ``"per_rater"``, else ``"one"``.
        mean: mean class probability over the draws (B, K, *S).
        include_background: average over class 0 as well.

    Returns:
        (B,), float.

    Example:
        >>> import torch
        >>> draws, raters = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 0]]]), torch.tensor([[[1, 1, 0, 0]]])
        >>> compute_dice(draws, raters, kind="expected")
        tensor([0.5000])
    """
    check_option("kind", kind, list(EMPTY_OF_KIND))
    draws = check_labels(draws, "draws", num_classes, may_miss=False)
    raters, _ = check_raters(raters, num_classes)
    check_same_grid(draws, raters, "draws and raters")
    if kind == "majority":
        raters = majority_vote(raters, num_classes)[:, None]
    elif kind == "single":
        raters = _named_rater(raters, rater)
    maps = draws if kind == "expected" else _mean_label(draws, mean, num_classes)[:, None]
    iou = pairwise_iou(
        maps,
        raters,
        num_classes=num_classes,
        empty=EMPTY_OF_KIND[kind] if empty is None else empty,
        include_background=include_background,
    )
    return (2 * iou / (1 + iou)).nanmean(-1).nanmean((1, 2))


def _named_rater(raters: Tensor, rater: int) -> Tensor:
    if not 0 <= rater < raters.shape[1]:
        raise ValueError(f"rater={rater} does not exist: the index must be from 0 to {raters.shape[1] - 1}.")
    return raters[:, rater : rater + 1]


def _mean_label(draws: Tensor, mean: Tensor | None, num_classes: int) -> Tensor:
    """Label map (B, *S) of the mean draw."""
    if mean is None:
        return modal_label(draws, num_classes)
    expected = (len(draws), num_classes, *draws.shape[2:])
    if mean.shape != expected:
        raise ValueError(f"mean has shape {tuple(mean.shape)}, but must be (B, K, *S) = {expected}: average over N.")
    return mean.argmax(1)
