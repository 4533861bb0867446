"""Whether a lesion is there at all: the draws' share of marked masks against the raters'."""

from __future__ import annotations

import torch
from monai.metrics.calibration import calibration_binning
from torch import Tensor

from monai_flowssn.metrics.iou import IoUTable, iou_table
from monai_flowssn.options import check_option


def compute_existence(
    draws: Tensor,
    raters: Tensor,
    *,
    num_classes: int = 2,
    kind: str = "brier",
    num_bins: int = 10,
    weights: Tensor | None = None,
) -> Tensor:
    """Compare the share a of the draws that mark any foreground with the share b of the raters who do.

    ``"brier"`` is ``(a - b)²`` (Brier, 1950). ``"draws"`` and ``"raters"`` are a and b themselves, for
    :func:`existence_curve`. ``"calibration"`` is what :func:`pool` makes an expected calibration error of over cases.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_classes: K.
        kind: one of those above.
        num_bins: of ``"calibration"``.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float; (B, num_bins + 1) for ``"calibration"``.

    Example:
        >>> draws, raters = torch.tensor([[[1, 1], [1, 0]]]), torch.tensor([[[0, 1], [0, 0]]])
        >>> compute_existence(draws, raters)  # (1 - 1/2)²
        tensor([0.2500])
    """
    table = iou_table(draws, raters, num_classes=num_classes, weights=weights)
    return existence_from_table(table, num_classes=num_classes, kind=kind, num_bins=num_bins)


def existence_from_table(table: IoUTable, *, num_classes: int = 2, kind: str = "brier", num_bins: int = 10) -> Tensor:
    """``compute_existence`` of areas that were computed before."""
    check_option("kind", kind, ["brier", "draws", "raters", "calibration"])
    if num_bins < 1:
        raise ValueError(f"num_bins={num_bins} must be at least 1.")
    foreground = slice(1 - num_classes, None)  # without the background, where it was counted
    a = (table.weights * (table.draw_areas[..., foreground].sum(-1) > 0)).sum(1)
    b = (table.rater_weights * (table.rater_areas[..., foreground].sum(-1) > 0)).sum(1)
    if kind == "calibration":
        p, y, count = calibration_binning(a.clamp(max=1).view(-1, 1, 1), b.view(-1, 1, 1), num_bins=num_bins)
        gaps = ((p - y) * count).nan_to_num()[:, 0]  # one bin of each case is not empty
        return torch.cat([gaps, torch.ones_like(gaps[:, :1])], 1)
    return {"brier": (a - b).square(), "draws": a, "raters": b}[kind]


def existence_curve(draws: Tensor, raters: Tensor, *, num_bins: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Calibration curve of existence over cases.

    Args:
        draws: the share of draws that mark something, per case (cases,): ``compute_existence(..., kind="draws")``.
        raters: the share of raters who do, per case (cases,).
        num_bins: equal bins of the first.

    Returns:
        Per bin the mean share of draws, the mean share of raters, NaN in empty bins, and the number of cases.

    Example:
        >>> existence_curve(torch.tensor([0.1, 0.3, 0.9]), torch.tensor([0.0, 0.5, 1.0]), num_bins=2)
        (tensor([0.2000, 0.9000]), tensor([0.2500, 1.0000]), tensor([2., 1.]))
    """
    shares = {"draws": draws, "raters": raters}
    if draws.ndim != 1 or draws.shape != raters.shape or not all(((x >= 0) & (x <= 1)).all() for x in shares.values()):
        about = ", ".join(f"{name} {tuple(x.shape)} in [{x.min():g}, {x.max():g}]" for name, x in shares.items())
        raise ValueError(
            f"got {about}, but both must be one share from 0 to 1 for each case: leave out cases that have none."
        )
    p, y, count = calibration_binning(draws.view(1, 1, -1), raters.view(1, 1, -1), num_bins=num_bins)
    return p[0, 0], y[0, 0], count[0, 0]
