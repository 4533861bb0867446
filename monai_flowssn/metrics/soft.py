"""Metrics of soft draws: likelihood, calibration, and PHiSeg's correlation."""

from __future__ import annotations

import math

import torch
from monai.metrics.calibration import calibration_binning
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_flowssn.metrics.iou import weighted_mean
from monai_flowssn.metrics.masks import check_probabilities, check_raters, draw_weights, rater_frequencies
from monai_flowssn.options import check_option

# Logarithms that are alive at once (32 MiB).
_CHUNK = 2**22


def compute_nll(pred: Tensor, raters: Tensor, *, eps: float = 1e-6, weights: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of the raters' maps under the mixture of the draws, in nats per case.

    ``-logsumexp_n [Σ_pixels log p(y | draw n) + log w_n]``, w = 1 / N, averaged over the raters (Monteiro et al., 2020,
    arXiv 2006.06015; Selvan et al., 2020, arXiv 2006.02683, print it with N = 128). Probabilities below ``eps`` count as
    ``eps``, so that one pixel that a draw excludes costs ``-log eps`` (13.8 nats) and not infinity. Compare values only
    at the same N, eps and image size.

    Args:
        pred: soft draws (B, N, K, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        eps: the smallest probability.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float.

    Example:
        >>> pred = torch.tensor([0.75, 0.25]).view(1, 1, 2, 1).expand(1, 3, 2, 4)
        >>> compute_nll(pred, torch.tensor([[[0, 0, 0, 1]]])).exp()  # (4/3)^3 * 4
        tensor([9.4815])
    """
    pred, raters, annotated = check_soft(pred, raters)
    return nll_from_likelihoods(log_likelihoods(pred, raters, eps), annotated, draw_weights(weights, pred))


def log_likelihoods(pred: Tensor, raters: Tensor, eps: float = 1e-6) -> Tensor:
    """``Σ_pixels log p(y | draw n)`` (B, N, R), float64, of soft draws (B, N, K, *S) for raters (B, R, *S)."""
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps} must lie between 0 and 1: it is the smallest probability.")
    return torch.stack([_case_likelihoods(p, y, eps) for p, y in zip(pred.flatten(3), raters.flatten(2), strict=True)])


def nll_from_likelihoods(log_p: Tensor, annotated: Tensor, weights: Tensor) -> Tensor:
    """``compute_nll`` (B,) from log likelihoods (B, N, R), which raters there are (B, R), and weights (B, N)."""
    nll = -(log_p + weights.double().log()[:, :, None]).logsumexp(1)
    return weighted_mean(nll, annotated.double()).to(torch.get_default_dtype())


def compute_ece(
    pred: Tensor,
    raters: Tensor,
    *,
    num_bins: int = 10,
    kind: str = "ece",
    pooled: bool = False,
    include_background: bool = False,
    weights: Tensor | None = None,
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
        pooled: return what the bins of all cases add up to, (B, J + 1), for :func:`pool`: one ECE of all pixels. MoSE.
        include_background: average over class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float, or (B, J + 1) if pooled.

    Example:
        >>> pred = torch.tensor([0.75, 0.25]).view(1, 1, 2, 1).expand(1, 3, 2, 4)
        >>> compute_ece(pred, torch.tensor([[[0, 0, 0, 1]]]))
        tensor([0.])
    """
    pred, raters, _ = check_soft(pred, raters)
    mean = mean_probability(pred, draw_weights(weights, pred))
    return ece_of_mean(mean, raters, num_bins=num_bins, kind=kind, pooled=pooled, include_background=include_background)


def ece_of_mean(
    mean: Tensor,
    raters: Tensor,
    *,
    num_bins: int = 10,
    kind: str = "ece",
    pooled: bool = False,
    include_background: bool = False,
) -> Tensor:
    """``compute_ece`` of the mean draw (B, K, *S) that was computed before."""
    check_option("kind", kind, ["ece", "ace"])
    first = 0 if include_background else 1
    share = rater_frequencies(raters, mean.shape[1])[:, first:]
    p, y, count = calibration_binning(mean[:, first:].flatten(2), share.flatten(2), num_bins=num_bins)
    if pooled:
        gaps = ((p - y) * count).nan_to_num().flatten(1)
        return torch.cat([gaps, count.flatten(1).sum(1, keepdim=True)], 1)
    error = (p - y).abs()
    if kind == "ace":
        return error.nanmean(-1).mean(1)
    return ((error * count).nansum(-1) / count.sum(-1)).mean(1)


def mean_probability(pred: Tensor, weights: Tensor) -> Tensor:
    """Mean (B, K, *S), float32, over soft draws (B, N, K, *S) of weights (B, N)."""
    equal = torch.equal(weights, weights[:, :1].expand_as(weights))
    counts = (
        torch.ones_like(weights) if equal else weights
    )  # whose sums are exact, so that ties of hard draws stay ties
    total = counts[:, None] @ pred.float().flatten(2)  # (B, 1, K * P): faster than a reduction
    return (total / counts.sum(1)[:, None, None]).view(len(pred), *pred.shape[2:]).clamp(0, 1)


def compute_ncc(
    pred: Tensor, raters: Tensor, *, order: str = "phiseg", eps: float = 1e-8, weights: Tensor | None = None
) -> Tensor:
    """Correlation of where the draws disagree and where they miss the raters, PHiSeg's S_NCC.

    ``E_y[NCC(E_s[CE(s̄, s)], E_s[CE(y, s)])]`` over pixels, with ``CE(a, b) = -Σ_k a_k log(b_k + eps)``, ``s̄`` the mean
    draw and NCC the Pearson correlation (Baumgartner et al., 2019, arXiv 1906.04045). Larger is better.

    ``"swapped"`` has ``CE(s, s̄)`` and ``CE(s, y)`` with probabilities kept in [eps, 1 - eps], and eps added to the
    denominator of the correlation, as the code of the flow matching of arXiv 2507.22418, whose eps is 1e-6.

    Args:
        pred: soft draws (B, N, K, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        order: ``"phiseg"`` or ``"swapped"``.
        eps: added to probabilities before the logarithm, as in the paper's code.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        (B,), float; NaN where no rater gives a defined correlation (a map of one value).

    Example:
        >>> p = torch.tensor([0.1, 0.5, 0.9])
        >>> pred = torch.stack([1 - p, p]).view(1, 1, 2, 3)
        >>> compute_ncc(pred, torch.tensor([[[0, 1, 1]]]))
        tensor([1.])
    """
    check_option("order", order, ["phiseg", "swapped"])
    pred, raters, annotated = check_soft(pred, raters)
    ncc = _case_ncc if order == "phiseg" else _swapped_ncc
    batch = zip(pred.flatten(3), draw_weights(weights, pred).double(), raters.flatten(2), annotated, strict=True)
    cases = [ncc(p.double(), w, y[there].long(), eps) for p, w, y, there in batch]
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
    check_probabilities(pred, "pred", dim=2)
    return pred, raters, annotated


def _case_likelihoods(pred: Tensor, raters: Tensor, eps: float) -> Tensor:
    """(N, R) for draws (N, K, P) and raters (R, P)."""
    total = torch.zeros(len(pred), len(raters), dtype=torch.float64, device=pred.device)
    step = max(1, _CHUNK // (len(pred) * pred.shape[1]))
    with torch.autocast(pred.device.type, enabled=False):
        for start in range(0, pred.shape[2], step):
            part = slice(start, start + step)
            log_p = pred[:, :, part].float().clamp(eps, 1.0).log().double()
            chosen = torch.stack([raters[:, part] == k for k in range(pred.shape[1])], 1).double()
            total += log_p.flatten(1) @ chosen.flatten(1).T  # a product instead of a look-up for every rater
    return total


def _case_ncc(pred: Tensor, weights: Tensor, raters: Tensor, eps: float) -> Tensor:
    """Mean over raters (R, P) of the correlation for draws (N, K, P) of weights (N,)."""
    mean_log = torch.tensordot(weights, (pred.clamp_min(0) + eps).log(), 1)  # (K, P)
    spread = -(torch.tensordot(weights, pred, 1) * mean_log).sum(0)
    return _correlation(-mean_log.gather(0, raters), spread).nanmean()


def _swapped_ncc(pred: Tensor, weights: Tensor, raters: Tensor, eps: float) -> Tensor:
    mean = torch.tensordot(weights, pred, 1)  # (K, P)
    spread = -(mean * mean.clamp(eps, 1 - eps).log()).sum(0)
    chosen = mean.gather(0, raters)  # (R, P)
    errors = -(chosen * math.log(1 - eps) + (mean.sum(0) - chosen) * math.log(eps))
    return _correlation(errors, spread, eps).mean()


def _correlation(rows: Tensor, of: Tensor, eps: float = 0.0) -> Tensor:
    """Pearson correlation (R,) of each row (R, P) with one (P,), eps added to the denominator."""
    rows, of = rows - rows.mean(1, keepdim=True), of - of.mean()
    return (rows @ of) / (rows.norm(dim=1) * of.norm() + eps)
