"""Distances between the surfaces of draws and raters, by MONAI."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from monai.metrics import compute_average_surface_distance, compute_surface_dice
from torch import Tensor

from monai_flowssn.metrics.iou import weighted_mean
from monai_flowssn.metrics.masks import check_labels, check_raters, check_same_grid, draw_weights
from monai_flowssn.options import check_option


def compute_surface(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    score: str = "distance",
    tolerance: float = 1.0,
    spacing: Sequence[float] | None = None,
    empty: str = "drop",
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over draw-rater pairs and foreground classes of MONAI's symmetric surface distance or normalised surface Dice.

    It costs a distance transform for every draw and pair: choose few draws.

    Args:
        draws: label maps (B, N, *S), 2-D or 3-D.
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        score: ``"distance"``, the average symmetric surface distance, or ``"dice"``, the share of both surfaces that lies within
            the tolerance of the other (Nikolov et al., 2018, arXiv 1809.04430).
        tolerance: of ``"dice"``, in the unit of the spacing.
        spacing: distance of pixels along each axis, usually in mm; None for pixels.
        empty: two empty masks: ``"drop"`` (left out) or ``"one"`` (Dice 1, distance 0). Where one of two is empty, Dice is 0 and
            the distance, which does not exist, is left out.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float; NaN where no pair is left.

    Example:
        >>> draws = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
        >>> raters = draws.clone()
        >>> draws[..., 2, 1], raters[..., 2, 3] = 1, 1
        >>> compute_surface(draws, raters, spacing=[1.0, 0.5])
        tensor([1.])
    """
    check_option("score", score, ["distance", "dice"])
    check_option("empty", empty, ["drop", "one"])
    if not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance} must be at least 0: it is a distance.")
    draws = check_labels(draws, "draws", num_classes, may_miss=False)
    raters, annotated = check_raters(raters, num_classes)
    check_same_grid(draws, raters, "draws and raters")
    values = torch.full((*draws.shape[:2], raters.shape[1], num_classes - 1), float("nan"))
    for b, n, r in torch.cartesian_prod(*map(torch.arange, values.shape[:3])).tolist():
        if annotated[b, r]:
            for c in range(1, num_classes):
                s, y = draws[b, n] == c, raters[b, r] == c
                values[b, n, r, c - 1] = _surface(s, y, score, tolerance, spacing, empty)
    pairs = values.nanmean(-1)
    return weighted_mean(pairs, draw_weights(weights, draws).cpu()[:, :, None].expand_as(pairs)).to(draws.device)


def _surface(
    a: Tensor, b: Tensor, score: str, tolerance: float, spacing: Sequence[float] | None, empty: str
) -> float | Tensor:
    """Score of two masks (*S)."""
    if not a.any() and not b.any():
        return float("nan") if empty == "drop" else float(score == "dice")
    if not a.any() or not b.any():
        return 0.0 if score == "dice" else float("nan")
    a, b = a[None, None], b[None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI 1.6 about itself
        if score == "dice":
            return compute_surface_dice(a, b, [tolerance], include_background=True, spacing=spacing)
        return compute_average_surface_distance(a, b, include_background=True, symmetric=True, spacing=spacing)
