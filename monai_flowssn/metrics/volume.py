"""Continuous ranked probability score of the area or volume."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_flowssn.metrics.iou import IoUTable, iou_table
from monai_flowssn.options import check_option


def compute_crps(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    estimator: str = "v",
    voxel: float = 1.0,
    include_background: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Continuous ranked probability score of the draws' areas (2-D) or volumes (3-D), averaged over raters and classes.

    ``E_y[E_s|V(s) - V(y)|] - ½ E|V(s) - V(s')|`` (Gneiting and Raftery, 2007). Smaller is better; for equal draws it is the
    absolute error of the area. An empty mask has area 0, so no convention for empty masks is needed.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        estimator: ``"v"`` counts the pairs of a draw with itself; ``"u"`` does not, which is the fair score, whose mean does not
            depend on N (Ferro, 2014); NaN for a single draw.
        voxel: the size of a pixel, for example in mm³; the score has its unit.
        include_background: average over class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float.

    Example:
        >>> draws, raters = torch.tensor([[[1, 1, 1, 0], [1, 0, 0, 0]]]), torch.tensor([[[0, 0, 1, 1]]])
        >>> compute_crps(draws, raters), compute_crps(draws, raters, estimator="u")  # areas 3 and 1 against 2
        (tensor([0.5000]), tensor([0.]))
    """
    table = iou_table(draws, raters, num_classes=num_classes, include_background=include_background, weights=weights)
    return crps_from_table(table, estimator=estimator, voxel=voxel)


def crps_from_table(table: IoUTable, *, estimator: str = "v", voxel: float = 1.0) -> Tensor:
    """``compute_crps`` of areas that were computed before."""
    check_option("estimator", estimator, ["v", "u"])
    s, y = table.draw_areas.double(), table.rater_areas.double()  # (B, N, C), (B, R, C)
    within, cross, _ = (pairs.double() for pairs in table.pair_weights())
    if estimator == "u":
        within = within * (1 - torch.eye(s.shape[1], device=s.device))
        within = within / within.sum((1, 2), keepdim=True)  # 0 / 0 for a single draw
    error = torch.einsum("bnr,bnrc->bc", cross, (s[:, :, None] - y[:, None]).abs())
    spread = torch.einsum("bnm,bnmc->bc", within, (s[:, :, None] - s[:, None]).abs())
    return (voxel * (error - spread / 2)).mean(1).to(torch.get_default_dtype())
