"""Effective rank: over how many directions draws spread."""

from __future__ import annotations

import torch
from monai.utils import convert_to_tensor
from torch import Tensor


def effective_rank(draws: Tensor) -> Tensor:
    r"""Effective rank of the draws of each case.

    :math:`erank(A) = \exp(H(\sigma / \sum \sigma))` with :math:`\sigma` the singular values of the N x (K d) matrix A of the
    centred draws and H the entropy in nats (Roy and Vetterli 2007, "The effective rank: a measure of effective
    dimensionality", EUSIPCO), by which De Sousa Ribeiro et al. 2025, arXiv 2507.18838, compare how much methods vary.

    It is at most N - 1, the rank of N centred rows, however rich the model: compare values at one N only, and report N with them.
    The effective rank of the *covariance* weights its directions by :math:`\sigma^2` and is smaller; it is
    ``rank_from_spectrum`` of the eigenvalues.

    Args:
        draws: (B, N, K, *S), probabilities or logits.

    Returns:
        (B,), float; 0 where all draws are the same.

    Example:
        >>> corners = torch.eye(3).view(1, 3, 3, 1)  # three draws, equally far from one another, span a plane
        >>> effective_rank(corners)
        tensor([2.])
    """
    draws = convert_to_tensor(draws, track_meta=False)
    if draws.ndim < 4 or 0 in draws.shape or draws.shape[1] < 2 or not draws.is_floating_point():
        raise ValueError(
            f"draws have shape {tuple(draws.shape)} and type {draws.dtype}, but must be (B, N, K, *S) with N of 2 or more, "
            "not label maps: pass what sample(image, n) returns."
        )
    if not draws.isfinite().all():
        raise ValueError("draws hold NaN or infinite values, but must be numbers: look at the network that drew them.")
    a = draws.flatten(2).double()  # (B, N, K * d)
    a = a - a[:, :1]  # equal draws become exact zeros, which a mean with rounding would not give
    sigma = torch.linalg.svdvals(a - a.mean(dim=1, keepdim=True))
    return rank_from_spectrum(sigma).to(torch.get_default_dtype())


def rank_from_spectrum(spectrum: Tensor) -> Tensor:
    """Exponential of the entropy of a spectrum that is scaled to the sum 1.

    Args:
        spectrum: (..., n), singular values of a matrix or eigenvalues of a covariance; what is below 0 is rounding.

    Returns:
        (...), between 1 and n; 0 where the spectrum is zero.

    Example:
        >>> rank_from_spectrum(torch.tensor([[5.0, 5.0, 5.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
        tensor([3., 1., 0.])
    """
    spectrum = spectrum.clamp(min=0)
    total = spectrum.sum(dim=-1, keepdim=True)
    entropy = torch.special.entr(spectrum / total.clamp(min=torch.finfo(total.dtype).tiny)).sum(dim=-1)
    return torch.where(total.squeeze(-1) > 0, entropy.exp(), 0)
