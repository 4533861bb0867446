"""Metrics of soft draws: likelihood, calibration, and PHiSeg's correlation."""

from __future__ import annotations

import math

import torch
from monai.metrics.calibration import calibration_binning
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_flowssn.metrics.masks import check_raters, rater_frequencies
from monai_flowssn.options import check_option


def compute_nll(pred: Tensor, raters: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Negative log-likelihood of the raters' maps under the mixture of the draws, in nats per case.

    ``-[logsumexp_n Σ_pixels log p(y | draw n) - log N]``, averaged over the raters (Monteiro et al., 2020, arXiv
    2006.06015; Selvan et al., 2020, arXiv 2006.02683, print it with N = 128). Probabilities below ``eps`` count as
    ``eps``, so that one pixel that a draw excludes costs ``-log eps`` (13.8 nats) and not infinity. Compare values only
    at the same N, eps and image size.

    Args:
        pred: soft draws (B, N, K, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        eps: the smallest probability.

    Returns:
        (B,), float.

    Example:
        >>> pred = torch.tensor([0.75, 0.25]).view(1, 1, 2, 1).expand(1, 3, 2, 4)
        >>> compute_nll(pred, torch.tensor([[[0, 0, 0, 1]]])).exp()  # (4/3)^3 * 4
        tensor([9.4815])
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps} must lie between 0 and 1: it is the smallest probability.")
    pred, raters, annotated = check_soft(pred, raters)
    cases = [_case_nll(p, y[there], eps) for p, y, there in zip(pred, raters, annotated, strict=True)]
    return torch.stack(cases).to(torch.get_default_dtype())


def compute_ece(
    pred: Tensor, raters: Tensor, *, num_bins: int = 10, kind: str = "ece", include_background: bool = False
) -> Tensor:
    """Calibration error of the mean draw against the raters of each case, averaged over the classes.

    Per class, pixels are put into equal bins of the mean probability over the draws, and the mean probability of each
    bin is compared with the mean share of raters who chose the class there. ``"ece"`` weights bins by their pixels
    (Guo et al., 2017, arXiv 1706.04599), ``"ace"`` weights non-empty bins alike (arXiv 2506.03942). Where most pixels
    are certain background, ECE is small for every model.

    Args:
        pred: soft draws (B, N, K, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        num_bins: the number of bins; 10 and 20 are in use.
        kind: ``"ece"`` or ``"ace"``.
        include_background: average over class 0 as well.

    Returns:
        (B,), float.

    Example:
        >>> pred = torch.tensor([0.75, 0.25]).view(1, 1, 2, 1).expand(1, 3, 2, 4)
        >>> compute_ece(pred, torch.tensor([[[0, 0, 0, 1]]]))
        tensor([0.])
    """
    check_option("kind", kind, ["ece", "ace"])
    pred, raters, _ = check_soft(pred, raters)
    first = 0 if include_background else 1
    mean = pred.mean(1, dtype=torch.float32).clamp(0, 1)[:, first:]
    share = rater_frequencies(raters, pred.shape[2])[:, first:]
    p, y, count = calibration_binning(mean.flatten(2), share.flatten(2), num_bins=num_bins)
    error = (p - y).abs()
    if kind == "ace":
        return error.nanmean(-1).mean(1)
    return ((error * count).nansum(-1) / count.sum(-1)).mean(1)


def compute_ncc(pred: Tensor, raters: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Correlation of where the draws disagree and where they miss the raters, PHiSeg's S_NCC.

    ``E_y[NCC(E_s[CE(s̄, s)], E_s[CE(y, s)])]`` over pixels, with ``CE(a, b) = -Σ_k a_k log(b_k + eps)``, ``s̄`` the mean
    draw and NCC the Pearson correlation (Baumgartner et al., 2019, arXiv 1906.04045). Larger is better.

    Args:
        pred: soft draws (B, N, K, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        eps: added to probabilities before the logarithm, as in the paper's code.

    Returns:
        (B,), float; NaN where no rater gives a defined correlation (a map of one value).

    Example:
        >>> p = torch.tensor([0.1, 0.5, 0.9])
        >>> pred = torch.stack([1 - p, p]).view(1, 1, 2, 3)
        >>> compute_ncc(pred, torch.tensor([[[0, 1, 1]]]))
        tensor([1.])
    """
    pred, raters, annotated = check_soft(pred, raters)
    cases = [_case_ncc(p, y[there], eps) for p, y, there in zip(pred, raters, annotated, strict=True)]
    return torch.stack(cases).to(torch.get_default_dtype())


def check_soft(pred: Tensor, raters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check soft draws (B, N, K, *S) against raters (B, R, *S).

    Returns:
        The draws, the raters, and which raters were annotated (B, R).
    """
    pred = convert_to_tensor(pred, track_meta=False)
    if pred.ndim < 4 or 0 in pred.shape or not pred.is_floating_point():
        raise ValueError(
            f"pred has shape {tuple(pred.shape)} and type {pred.dtype}, but must be soft draws (B, N, K, *S): "
            "give class probabilities, not label maps."
        )
    raters, annotated = check_raters(raters, pred.shape[2])
    if raters.shape[0] != pred.shape[0] or raters.shape[2:] != pred.shape[3:]:
        raise ValueError(
            f"pred and raters have shapes {tuple(pred.shape)} and {tuple(raters.shape)}, but (B, N, K, *S) and "
            "(B, R, *S) must agree in B and in *S: resample one onto the grid of the other."
        )
    low, high = (float(v) for v in pred.aminmax())
    # The rounding of half precision and of an adaptive solver is let through, logits and NaN are not.
    if not (low >= -0.01 and high <= 1.01):
        raise ValueError(f"pred lies in [{low}, {high}], but probabilities lie in [0, 1]: apply the softmax over K.")
    return pred, raters, annotated


def _case_nll(pred: Tensor, raters: Tensor, eps: float) -> Tensor:
    """Mean over raters (R, *S) of the negative log-likelihood under draws (N, K, *S)."""
    pred = pred.flatten(2)
    values = []
    for label in raters.flatten(1).long():
        chosen = pred.gather(1, label.expand(len(pred), 1, -1))[:, 0]
        log_p = chosen.float().clamp(eps, 1.0).log().sum(-1, dtype=torch.float64)  # (N,)
        values.append(math.log(len(pred)) - log_p.logsumexp(0))
    return torch.stack(values).mean()


def _case_ncc(pred: Tensor, raters: Tensor, eps: float) -> Tensor:
    """Mean over raters (R, *S) of the correlation for draws (N, K, *S)."""
    pred = pred.flatten(2).double()
    mean_log = (pred.clamp_min(0) + eps).log().mean(0)  # (K, P)
    spread = -(pred.mean(0) * mean_log).sum(0)
    errors = -mean_log.gather(0, raters.flatten(1).long())  # (R, P)
    spread, errors = spread - spread.mean(), errors - errors.mean(1, keepdim=True)
    return ((errors @ spread) / (errors.norm(dim=1) * spread.norm())).nanmean()
