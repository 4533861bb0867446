"""Metrics of the mean draw against the raters' mean, both cut at several levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.metrics.calibration import calibration_binning
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_flowssn.metrics.masks import check_probabilities, rater_frequencies
from monai_flowssn.options import check_option

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def compute_thresholded(
    mean: Tensor,
    raters: Tensor,
    *,
    score: str = "dice",
    levels: Sequence[float] = LEVELS,
    num_bins: int = 10,
    include_background: bool = False,
) -> Tensor:
    """Mean over levels t, and classes, of a score of the mean draw p for the masks ``q > t`` of the raters' mean q.

    - ``"dice"``: Dice of ``p > t`` and ``q > t``, 1 where both are empty (QUBIQ; with .1 .3 .5 .7 .9 D-Persona's Dice_soft).
    - ``"brier"``: mean over pixels of ``(p - 1[q > t])²``.
    - ``"ece"``: expected calibration error of p for ``1[q > t]``.

    A mask that no rater marked is empty at every level; with ``"brier"`` and ``"ece"`` it is as any other.

    Args:
        mean: mean class probability over the draws (B, K, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        score: one of those above.
        levels: t, each at least 0 and below 1.
        num_bins: of ``"ece"``.
        include_background: average over class 0 as well.

    Returns:
        (B,), float.

    Example:
        >>> p = torch.tensor([0.4, 0.8, 0.0, 0.0])
        >>> compute_thresholded(torch.stack([1 - p, p])[None], torch.tensor([[[0, 1, 0, 0]]]), levels=[0.3, 0.5])
        tensor([0.8333])
    """
    check_option("score", score, ["dice", "brier", "ece"])
    if not levels or not all(0 <= t < 1 for t in levels):
        raise ValueError(f"levels={list(levels)} must be at least one number from 0 up to, but without, 1.")
    mean = convert_to_tensor(mean, track_meta=False)
    first = 0 if include_background else 1
    p, q = (x[:, first:].flatten(2).float() for x in (mean, rater_frequencies(raters, mean.shape[1])))
    if p.shape != q.shape:
        raise ValueError(
            f"mean and raters have shapes {tuple(mean.shape)} and {tuple(raters.shape)}, but (B, K, *S) and (B, R, *S) "
            "must agree in B and in *S: resample one onto the grid of the other."
        )
    check_probabilities(mean, "mean", dim=1)
    values = [_at_level(p, q, t, score, num_bins) for t in levels]
    return torch.stack(values).mean((0, 2))


def _at_level(p: Tensor, q: Tensor, t: float, score: str, num_bins: int) -> Tensor:
    """Score (B, C) of probabilities and shares (B, C, P)."""
    y = (q > t).float()
    if score == "brier":
        return (p - y).square().mean(2)
    if score == "ece":
        a, b, count = calibration_binning(p, y, num_bins=num_bins)
        return ((a - b).abs() * count).nansum(2) / count.sum(2)
    s = (p > t).float()
    return (2 * (s * y).sum(2) / (s.sum(2) + y.sum(2))).nan_to_num(1.0)
