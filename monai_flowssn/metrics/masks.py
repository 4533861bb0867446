"""Checks of label maps, and what follows from the raters' maps alone."""

from __future__ import annotations

import torch
from monai.utils import convert_to_tensor
from torch import Tensor


def check_labels(maps: Tensor, name: str, num_classes: int, *, may_miss: bool = True) -> Tensor:
    """Return label maps as a plain tensor, after checking their dimensions and ids.

    Args:
        maps: (B, M, *S), integers from -1 to K - 1 (floating point is accepted where every value is whole).
        name: what to call them in an error.
        num_classes: K.
        may_miss: whether a map may be missing, that is -1.

    Returns:
        The same maps, (B, M, *S), without metadata.
    """
    maps = convert_to_tensor(maps, track_meta=False)
    if maps.ndim < 3 or 0 in maps.shape:
        raise ValueError(
            f"{name} have shape {tuple(maps.shape)}, but must be non-empty (B, maps, *S): add the missing dimension."
        )
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes} must be at least 2: the background counts as a class.")
    if maps.is_floating_point() and not torch.equal(maps, maps.round()):
        raise ValueError(f"{name} hold fractions or NaN, but must hold class ids: take the argmax or round them first.")
    maps = maps.to(torch.uint8) if maps.dtype == torch.bool else maps
    low, high = (int(v) for v in maps.aminmax())
    if high >= num_classes:
        raise ValueError(
            f"{name} hold class id {high}, but ids must be below num_classes={num_classes}: raise num_classes or remap."
        )
    if low < (-1 if may_miss else 0):
        rule = "only -1 (not annotated) may be negative" if may_miss else "draws are never missing, so none is negative"
        raise ValueError(f"{name} hold class id {low}, but {rule}: remap the ids.")
    return maps


def annotated_raters(raters: Tensor) -> Tensor:
    """Which raters annotated which case: those whose map is not -1 everywhere.

    Args:
        raters: (B, R, *S), integers.

    Returns:
        (B, R), boolean.
    """
    missing = raters.flatten(2) < 0
    everywhere, somewhere = missing.all(-1), missing.any(-1)
    if not torch.equal(everywhere, somewhere):
        case, rater = (somewhere & ~everywhere).nonzero()[0].tolist()
        raise ValueError(
            f"rater {rater} of case {case} is -1 in a part of the map, but -1 means that the rater did not annotate the "
            "case and must fill the whole map: give the unmarked pixels a class id."
        )
    return ~everywhere


def check_raters(raters: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Check raters' maps, and that every case has at least one.

    Returns:
        The maps (B, R, *S) and which of them were annotated (B, R).
    """
    raters = check_labels(raters, "raters", num_classes)
    annotated = annotated_raters(raters)
    if not annotated.any(1).all():
        case = int((~annotated.any(1)).nonzero()[0])
        raise ValueError(f"all raters of case {case} are missing (-1), but one must be there: leave the case out.")
    return raters, annotated


def check_same_grid(a: Tensor, b: Tensor, names: str) -> None:
    """Refuse two stacks of maps, (B, N, *S) and (B, R, *S), that differ in B or *S."""
    if a.shape[:1] != b.shape[:1] or a.shape[2:] != b.shape[2:]:
        raise ValueError(
            f"{names} have shapes {tuple(a.shape)} and {tuple(b.shape)}, but must agree in B and in *S: "
            "resample one onto the grid of the other."
        )


def draw_weights(weights: Tensor | None, draws: Tensor) -> Tensor:
    """The probability of each draw: what was given, scaled to the sum 1, or 1 / N.

    Args:
        weights: (B, N), not negative; None where the draws are equally likely.
        draws: (B, N, ...).

    Returns:
        (B, N), float32, on the device of the draws.
    """
    shape = draws.shape[:2]
    if weights is None:
        return torch.full(shape, 1 / shape[1], device=draws.device)
    weights = convert_to_tensor(weights, track_meta=False).to(draws.device, torch.float32)
    if weights.shape != shape:
        raise ValueError(f"weights have shape {tuple(weights.shape)}, but must be (B, N) = {tuple(shape)}: one a draw.")
    total = weights.sum(1, keepdim=True)
    if not (weights >= 0).all() or not (total > 0).all() or not total.isfinite().all():
        raise ValueError(
            "weights must be finite, not negative and not all 0 in a case: they are probabilities of draws."
        )
    return weights / total


def rater_frequencies(raters: Tensor, num_classes: int) -> Tensor:
    """Per pixel, the share of the annotating raters that chose each class.

    Args:
        raters: (B, R, *S), integers, -1 everywhere where a rater is missing.
        num_classes: K.

    Returns:
        (B, K, *S), float.
    """
    raters, annotated = check_raters(raters, num_classes)
    votes = _votes(raters, num_classes)
    return votes / annotated.sum(1).view(-1, *[1] * (votes.ndim - 1))


def majority_vote(raters: Tensor, num_classes: int) -> Tensor:
    """The class that more than half of the annotating raters chose, background where there is none.

    Args:
        raters: (B, R, *S), integers, -1 everywhere where a rater is missing.
        num_classes: K.

    Returns:
        (B, *S), integers.
    """
    share, label = rater_frequencies(raters, num_classes).max(1)
    return torch.where(share > 0.5, label, 0)


def plurality_vote(raters: Tensor, num_classes: int) -> Tensor:
    """The class that most of the annotating raters chose, the lowest id on a tie; with two classes the majority.

    Args:
        raters: (B, R, *S), integers, -1 everywhere where a rater is missing.
        num_classes: K.

    Returns:
        (B, *S), integers.
    """
    return rater_frequencies(raters, num_classes).max(1).indices


def draw_frequencies(draws: Tensor, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """Per pixel, the share of the draws that chose each class.

    Args:
        draws: (B, N, *S), integers.
        num_classes: K.
        weights: (B, N), the probability of each draw; None where they are equally likely.

    Returns:
        (B, K, *S), float.
    """
    if weights is None:
        return _votes(draws, num_classes) / draws.shape[1]
    return _votes(draws, num_classes, draw_weights(weights, draws))


def _votes(maps: Tensor, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """How many maps (B, M, *S), or what weight of them (B, M), chose each class, (B, K, *S)."""
    shape = (len(maps), num_classes, *maps.shape[2:])
    votes = torch.zeros(shape, dtype=torch.int32 if weights is None else weights.dtype, device=maps.device)
    # Map by map: several times faster than a reduction over M of all the comparisons, and in the memory of one map.
    for m, labels in enumerate(maps.unbind(1)):
        one = 1 if weights is None else weights[:, m].view(-1, *[1] * (maps.ndim - 2))
        for c in range(num_classes):
            votes[:, c] += (labels == c) * one
    return votes
