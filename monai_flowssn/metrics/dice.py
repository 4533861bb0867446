"""Dice, under each of the names by which the field calls it.

Of the draws fused to one map:

- ``"majority"``: against the strict majority of the raters (a tie is background). Flow-SSN.
- ``"plurality"``: against the class that most raters chose, the lowest id on a tie. Flow-SSN with K > 2.
- ``"per_rater"``: against each rater, averaged. The SSN and PHiSeg rows of published tables.
- ``"single"``: against one rater; NaN where that rater is missing. PHiSeg's code, cFlow Net.

Of the pairs of a draw and a rater:

- ``"expected"``: the mean. Joint Probabilistic U-Net.
- ``"max"``: the mean over raters of the best draw. Flow matching, CIMD (D_max), D-Persona.
- ``"max_draw"``: the mean over draws of the best rater. D-Persona.
- ``"max_pair"``: the best pair. P2SAM.
- ``"match"``: the mean of the best one-to-one assignment. D-Persona.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_flowssn.annotations import check_labels
from monai_flowssn.metrics.iou import EMPTY, IoUTable, iou_table, iou_to_dice, pairwise_iou, weighted_mean
from monai_flowssn.metrics.masks import (
    check_probabilities,
    check_raters,
    draw_frequencies,
    majority_vote,
    plurality_vote,
)
from monai_flowssn.metrics.matching import best_plan
from monai_flowssn.options import check_option

# What each kind does with two empty masks, in the papers that use it.
EMPTY_OF_FUSED = {"majority": "one", "plurality": "one", "per_rater": "drop", "single": "one"}
KINDS_OF_PAIRS = ["expected", "max", "max_draw", "max_pair", "match"]  # all "one"


def compute_dice(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    kind: str = "majority",
    rater: int = 0,
    empty: str | None = None,
    where: str | None = None,
    pooled: bool = False,
    mean: Tensor | None = None,
    include_background: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Dice between draws and raters of each case, ``2 |A ∩ B| / (|A| + |B|)`` averaged over the classes.

    The kinds are those of the head of this file. The fused map is the argmax of the mean probability where ``mean`` is given, as
    in the papers, and otherwise the most frequent label of each pixel over the draws, a vote; on a tie, the lowest class id.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        kind: one of those.
        rater: the index of the rater for ``"single"``.
        empty: Dice of two empty masks: ``"one"``, ``"zero"`` or ``"drop"`` (left out); by default the convention of the kind:
            ``"drop"`` for ``"per_rater"``, else ``"one"``.
        where: ``"any"``: NaN for cases that no rater marked; ``"majority"``: for those that no strict majority marked;
            ``"rater"``: pairs whose rater did not mark the class are left out. Else empty masks carry the mean of sets with
            many of them.
        pooled: return the sum over the pairs (and classes) that count and their number, (B, 2), to be pooled over cases
            (:func:`~monai_flowssn.metrics.pool`); for the kinds that fuse the draws. SSN.
        mean: mean class probability over the draws (B, K, *S).
        include_background: average over class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float, or (B, 2) if pooled.

    Example:
        >>> draws, raters = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 0]]]), torch.tensor([[[1, 1, 0, 0]]])
        >>> compute_dice(draws, raters, kind="expected"), compute_dice(draws, raters, kind="max")
        (tensor([0.5000]), tensor([1.]))
    """
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "kind": kind,
        "empty": empty,
        "where": where,
        "pooled": pooled,
        "include_background": include_background,
    }
    check_option("kind", kind, [*EMPTY_OF_FUSED, *KINDS_OF_PAIRS])
    if kind in KINDS_OF_PAIRS:
        table = iou_table(
            draws, raters, num_classes=num_classes, include_background=include_background, weights=weights
        )
        return dice_from_iou(table, raters, **options)
    return fused_dice(_fuse(draws, mean, num_classes, weights), raters, rater=rater, **options)


def _fuse(draws: Tensor, mean: Tensor | None, num_classes: int, weights: Tensor | None) -> Tensor:
    draws = check_labels(draws, "draws", num_classes, may_miss=False)
    expected = (len(draws), num_classes, *draws.shape[2:])
    if mean is None:
        mean = draw_frequencies(draws, num_classes, weights)
    elif mean.shape != expected:
        raise ValueError(f"mean has shape {tuple(mean.shape)}, but must be (B, K, *S) = {expected}: average over N.")
    else:
        check_probabilities(mean, "mean", dim=1)
    return mean.argmax(1)


def fused_dice(
    fused: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    kind: str = "majority",
    rater: int = 0,
    empty: str | None = None,
    where: str | None = None,
    pooled: bool = False,
    include_background: bool = False,
) -> Tensor:
    """``compute_dice`` of the label maps (B, *S) to which the draws were fused before."""
    check_option("kind", kind, list(EMPTY_OF_FUSED))
    raters, _ = check_raters(raters, num_classes)
    against = raters
    if kind == "single":
        against = _named_rater(raters, rater)
    elif kind != "per_rater":
        against = (majority_vote if kind == "majority" else plurality_vote)(raters, num_classes)[:, None]
    rule = EMPTY_OF_FUSED[kind] if empty is None else empty
    iou = pairwise_iou(
        fused[:, None], against, num_classes=num_classes, empty=rule, include_background=include_background
    )
    dice = _restrict(iou_to_dice(iou), against, raters, num_classes, where)
    if pooled:
        return torch.stack([dice.nansum((1, 2, 3)), (~dice.isnan()).sum((1, 2, 3)).to(dice.dtype)], 1)
    return dice.nanmean(-1).nanmean((1, 2))


def dice_from_iou(
    table: IoUTable,
    raters: Tensor,
    *,
    num_classes: int = 2,
    kind: str = "expected",
    empty: str | None = None,
    where: str | None = None,
    pooled: bool = False,
    include_background: bool = False,
) -> Tensor:
    """``compute_dice`` of the pairs of draws and raters whose IoUs were computed before."""
    check_option("kind", kind, KINDS_OF_PAIRS)
    rule = "one" if empty is None else empty
    check_option("empty", rule, list(EMPTY))
    if pooled:
        raise ValueError(
            f"pooled is true, but Dice of kind {kind!r} is a mean per case: choose 'per_rater' or another that fuses."
        )
    iou = table.cross.nan_to_num(EMPTY[rule]).masked_fill(~table.annotated[:, None, :, None], float("nan"))
    dice = _restrict(iou_to_dice(iou), raters, raters, num_classes, where).nanmean(-1)  # (B, N, R)
    if kind == "expected":
        return weighted_mean(dice, table.pair_weights()[1])
    if kind == "match":
        return torch.stack([_matched(*case) for case in zip(dice, table.annotated, strict=True)])
    best = dice.nan_to_num(-1).amax({"max": (1,), "max_draw": (2,), "max_pair": (1, 2)}[kind])
    best = best.masked_fill(best < 0, float("nan")).view(len(dice), -1)
    return weighted_mean(best, table.weights if kind == "max_draw" else torch.ones_like(best))


def _restrict(dice: Tensor, against: Tensor, raters: Tensor, num_classes: int, where: str | None) -> Tensor:
    """Dice (B, N, M, classes) against M maps, NaN where it does not count."""
    check_option("where", where, [None, "any", "majority", "rater"])
    if where is None:
        return dice
    if where == "rater":
        first = num_classes - dice.shape[-1]
        keep = torch.stack([(against == c).flatten(2).any(2) for c in range(first, num_classes)], -1)[:, None]
    else:
        marked = raters > 0 if where == "any" else majority_vote(raters, num_classes) > 0
        keep = marked.flatten(1).any(1).view(-1, 1, 1, 1)
    return dice.masked_fill(~keep, float("nan"))


def _matched(dice: Tensor, there: Tensor) -> Tensor:
    """Mean over the best one-to-one assignment of draws and annotating raters, from Dice (N, R)."""
    scores = dice[:, there]
    plan = torch.from_numpy(best_plan(scores.nan_to_num(1.0).double().cpu().numpy())).to(scores)
    return scores[plan > 0].nanmean()


def _named_rater(raters: Tensor, rater: int) -> Tensor:
    if not 0 <= rater < raters.shape[1]:
        raise ValueError(f"rater={rater} does not exist: the index must be from 0 to {raters.shape[1] - 1}.")
    return raters[:, rater : rater + 1]
