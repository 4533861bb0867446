"""Checks of label maps, and what follows from the raters' maps alone."""

from __future__ import annotations

import torch
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


def modal_label(draws: Tensor, num_classes: int) -> Tensor:
    """The most frequent class of each pixel over the draws (the lowest id on a tie).

    Args:
        draws: (B, N, *S), integers.
        num_classes: K.

    Returns:
        (B, *S), integers.
    """
    return _votes(draws, num_classes).max(1).indices


def _votes(maps: Tensor, num_classes: int) -> Tensor:
    """How many maps (B, M, *S) chose each class, (B, K, *S)."""
    shape = (len(maps), num_classes, *maps.shape[2:])
    votes = torch.zeros(shape, dtype=torch.int32, device=maps.device)
    # Map by map: several times faster than a reduction over M of all the comparisons, and in the memory of one map.
    for labels in maps.unbind(1):
        for c in range(num_classes):
            votes[:, c] += labels == c
    return votes
