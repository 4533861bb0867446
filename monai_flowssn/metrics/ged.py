"""Generalised energy distance and diversity."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_flowssn.metrics.iou import IoUTable, iou_table, weighted_mean
from monai_flowssn.options import check_option


def compute_ged(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    estimator: str = "v",
    empty: str = "one",
    include_background: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Squared generalised energy distance between the draws and the raters of each case.

    ``GED² = 2 E[d(s, y)] - E[d(s, s')] - E[d(y, y')]`` with ``d = 1 - IoU`` averaged over the classes (Székely and
    Rizzo, 2013; Kohl et al., 2018, arXiv 1806.05034). Smaller is better.

    The estimator of ``E[d(s, s')]`` decides what N means. ``"v"``, which every paper prints, counts the N pairs of a
    draw with itself; it is never negative and falls with N: with ``empty="one"`` it is ``GED_u + D / N``, D the diversity.
    ``"u"`` leaves them out, so its mean does not depend on N. Both keep the diagonal of the rater term, as every paper does.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        estimator: ``"v"`` or ``"u"``; ``"u"`` of a single draw is NaN.
        empty: the IoU of two empty masks: ``"one"`` (Flow-SSN, PHiSeg, SSN), ``"zero"`` (D-Persona), or ``"drop"``
            (Kohl): the pair is left out. A spread without a pair left is 0, a case without a draw-rater pair left is
            NaN. ``"drop_case"`` (MoSE and Flow-SSN with K > 2): a case with such a pair is NaN.
        include_background: average over class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely. ``"u"`` divides by 1 - Σ w².

    Returns:
        (B,), float.

    Example:
        >>> draws, raters = torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 0]]]), torch.tensor([[[1, 0, 0, 0]]])
        >>> compute_ged(draws, raters), compute_ged(draws, raters, estimator="u")
        (tensor([1.]), tensor([0.5000]))
    """
    table = iou_table(draws, raters, num_classes=num_classes, include_background=include_background, weights=weights)
    return ged_from_iou(table, estimator=estimator, empty=empty)


def ged_from_iou(table: IoUTable, *, estimator: str = "v", empty: str = "one") -> Tensor:
    """``compute_ged`` of IoUs that were computed before."""
    (draws, cross, raters), weights = table.class_means(empty), table.pair_weights()
    spreads = _spread(draws, weights[0], estimator, empty) + _spread(raters, weights[2], "v", empty)
    return 2 * weighted_mean(1 - cross, weights[1]) - spreads


def compute_diversity(
    draws: Tensor,
    *,
    num_classes: int = 2,
    estimator: str = "v",
    empty: str = "one",
    include_background: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Expected distance between two draws of each case, ``E[d(s, s')]`` with ``d = 1 - IoU``.

    Args:
        draws: label maps (B, N, *S).
        num_classes: K.
        estimator: ``"v"`` counts the pairs of a draw with itself, ``"u"`` does not (NaN for a single draw).
        empty: the IoU of two empty masks: ``"one"``, ``"zero"``, ``"drop"`` (pair left out) or ``"drop_case"`` (NaN).
        include_background: average over class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float.

    Example:
        >>> compute_diversity(torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0]]]), estimator="u")
        tensor([0.5000])
    """
    # A rater is needed for a table; any will do.
    table = iou_table(
        draws, draws[:, :1], num_classes=num_classes, include_background=include_background, weights=weights
    )
    return diversity_from_iou(table, estimator=estimator, empty=empty)


def diversity_from_iou(table: IoUTable, *, estimator: str = "v", empty: str = "one") -> Tensor:
    """``compute_diversity`` of IoUs that were computed before."""
    return _spread(table.class_means(empty)[0], table.pair_weights()[0], estimator, empty)


def _spread(iou: Tensor, weights: Tensor, estimator: str, empty: str) -> Tensor:
    """Mean distance (B,) within one set, from its IoUs (B, M, M), NaN for pairs that do not count, and their weights."""
    check_option("estimator", estimator, ["v", "u"])
    if estimator == "u":
        iou = iou.masked_fill(torch.eye(iou.shape[1], dtype=torch.bool, device=iou.device), float("nan"))
    mean = weighted_mean(1 - iou, weights)
    alone = estimator == "u" and iou.shape[1] == 1
    return mean.nan_to_num(0.0) if empty == "drop" and not alone else mean
