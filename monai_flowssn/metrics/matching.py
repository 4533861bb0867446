"""Hungarian-matched IoU and average IoU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

from monai_flowssn.metrics.iou import IoUTable, iou_table, weighted_mean
from monai_flowssn.options import check_option


def compute_hm_iou(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    matching: str = "duplicate",
    empty: str = "one",
    include_background: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean IoU under the best one-to-one matching of draws and raters of each case (Kohl et al., 2019).

    ``"duplicate"`` repeats draws and raters to the least common multiple of N and R, so that every draw and every
    rater counts alike. ``"best"`` gives each rater its best distinct draw and ignores the others: an oracle that rises
    with N (Flow-SSN's 0.87 on LIDC-IDRI is the best 4 of 100). Draws with ``weights`` are matched in these amounts, which is
    optimal transport (Gao et al., 2023, arXiv 2212.07328); ``"best"`` does not ask how likely a draw is.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        matching: ``"duplicate"`` or ``"best"``; the latter matches only N raters where N < R.
        empty: the IoU of two empty masks: ``"one"``, ``"zero"``, or ``"drop"``: such a pair is matched as a perfect one
            and then left out of the mean (NaN if no other is left), or ``"drop_case"``: a case with such a pair is NaN.
        include_background: average over class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float.

    Example:
        >>> draws, raters = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 0]]]), torch.tensor([[[1, 0, 0, 0]]])
        >>> compute_hm_iou(draws, raters), compute_hm_iou(draws, raters, matching="best")
        (tensor([0.2500]), tensor([0.5000]))
    """
    table = iou_table(draws, raters, num_classes=num_classes, include_background=include_background, weights=weights)
    return hm_iou_from_iou(table, matching=matching, empty=empty)


def hm_iou_from_iou(table: IoUTable, *, matching: str = "duplicate", empty: str = "one") -> Tensor:
    """``compute_hm_iou`` of IoUs that were computed before."""
    check_option("matching", matching, ["duplicate", "best"])
    plan = best_plan if matching == "best" else _duplicate_plan
    cross = table.class_means(empty)[1]
    values = [
        _planned_mean(iou[:, there].double().numpy(), weights.double().numpy(), plan)
        for iou, there, weights in zip(cross.cpu(), table.annotated.cpu(), table.weights.cpu(), strict=True)
    ]
    return torch.tensor(values, dtype=cross.dtype, device=cross.device)


def compute_average_iou(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    empty: str = "one",
    include_background: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean IoU over all draw-rater pairs of each case, meant for data sets with a single rater.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        empty: the IoU of two empty masks: ``"one"``, ``"zero"``, ``"drop"`` (pair left out) or ``"drop_case"`` (NaN).
        include_background: average over class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float.

    Example:
        >>> compute_average_iou(torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 0]]]), torch.tensor([[[1, 0, 0, 0]]]))
        tensor([0.2500])
    """
    table = iou_table(draws, raters, num_classes=num_classes, include_background=include_background, weights=weights)
    return average_iou_from_iou(table, empty=empty)


def average_iou_from_iou(table: IoUTable, *, empty: str = "one") -> Tensor:
    """``compute_average_iou`` of IoUs that were computed before."""
    return weighted_mean(table.class_means(empty)[1], table.pair_weights()[1])


def _planned_mean(iou: np.ndarray, weights: np.ndarray, plan: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    """Mean of IoU (N, R) of draws with weights (N,) under a plan's amounts, without the dropped (NaN) pairs."""
    amounts = plan(np.nan_to_num(iou, nan=1.0), weights)[~np.isnan(iou)]
    total = amounts.sum()
    return float(amounts @ iou[~np.isnan(iou)] / total) if total > 0 else float("nan")


def best_plan(scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Amounts (N, R), 0 and 1, of the assignment of distinct draws to raters with the highest sum of scores."""
    amounts = np.zeros_like(scores)
    amounts[linear_sum_assignment(scores, maximize=True)] = 1.0
    return amounts


def _duplicate_plan(iou: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Amounts (N, R) of the best matching of draws and raters repeated to their least common multiple."""
    n, r = iou.shape
    if (n % r and r % n) or np.ptp(weights) > 1e-7:
        return _transport_plan(iou, weights)
    size = max(n, r)
    rows, columns = linear_sum_assignment(iou.repeat(size // n, 0).repeat(size // r, 1), maximize=True)
    amounts = np.zeros_like(iou)
    np.add.at(amounts, (rows // (size // n), columns // (size // r)), 1.0)
    return amounts


def _transport_plan(iou: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same matching as a transport problem of N x R unknowns, for any weights (N,) of the draws.

    Repeated maps are interchangeable, and the vertices of this polytope are whole multiples of 1 / lcm(N, R), so the
    optimum is that of the repeated assignment, whose matrix would have lcm(N, R)² entries (3584² for 512 and 7).
    """
    n, r = iou.shape
    each_draw = sparse.kron(sparse.eye(n), np.ones((1, r)))
    each_rater = sparse.kron(np.ones((1, n)), sparse.eye(r))
    mass = np.concatenate([weights / weights.sum(), np.full(r, 1 / r)])
    plan = linprog(-iou.ravel(), A_eq=sparse.vstack([each_draw, each_rater], "csr"), b_eq=mass, method="highs")
    return plan.x.reshape(n, r)
