"""Checks of label maps, and what follows from the raters' maps alone."""

from __future__ import annotations

import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_flowssn.annotations import annotated_raters, check_labels


def check_raters(raters: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Check raters' maps, and that every case has at least one.

    Returns:
        The maps (B, R, *S) and which of them were annotated (B, R).
    """
    raters = check_labels(raters, "raters", num_classes)
    return raters, annotated_raters(raters, needed=True)


def check_same_grid(a: Tensor, b: Tensor, names: str) -> None:
    """Refuse two stacks of maps, (B, N, *S) and (B, R, *S), that differ in B or *S."""
    if a.shape[:1] != b.shape[:1] or a.shape[2:] != b.shape[2:]:
        raise ValueError(
            f"{names} have shapes {tuple(a.shape)} and {tuple(b.shape)}, but must agree in B and in *S: "
            "resample one onto the grid of the other."
        )


def check_probabilities(p: Tensor, name: str, *, dim: int) -> None:
    """Refuse what are no probabilities of classes: outside of [0, 1], NaN, or of another sum than 1 over the axis of the classes.

    The rounding of half precision and of an adaptive solver is let through.
    """
    low, high = (float(v) for v in p.aminmax())
    if not (low >= -0.01 and high <= 1.01):
        raise ValueError(f"{name} lies in [{low}, {high}], but probabilities lie in [0, 1]: apply the softmax over K.")
    low, high = (float(v) for v in p.sum(dim, dtype=torch.float32).aminmax())
    if not (low >= 0.98 and high <= 1.02):
        raise ValueError(
            f"{name} has sums over K from {low:.4g} to {high:.4g}, but the probabilities of all classes, the background too, "
            "add up to 1: apply the softmax over K (for a sigmoid p, stack 1 - p and p)."
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
