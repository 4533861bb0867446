"""The kernel score: a loss on draws that is the evaluation's own distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_flowssn.annotations import check_masks, rater_weights

__all__ = ["kernel_score", "soft_jaccard_distance"]


def kernel_score(
    draws: Tensor, masks: Tensor, *, pixel_weight: float = 0.002, smooth: float = 1.0
) -> dict[str, Tensor]:
    r"""Score draws against the masks of all raters; its expectation is lowest where draws are distributed as masks.

    With d the Jaccard distance, which is of negative type, the squared generalised energy distance is a kernel score (Gneiting &
    Raftery 2007, J. Am. Stat. Assoc. 102, sec. 4), so that a model which draws with gradients can be trained on it (Bouchacourt
    et al. 2016, arXiv 1606.02556). Here, with n draws s and R raters y,

    .. math:: \mathrm{GED}_u = \frac{2}{n R} \sum_{ij} d(s_i, y_j) - \frac{1}{n (n - 1)} \sum_{i \ne j} d(s_i, s_j)
        - \frac{1}{R^2} \sum_{ij} d(y_i, y_j),

    and the loss is its mean over the images plus ``pixel_weight`` times the same score with the pixel-wise distance
    :math:`\frac{1}{2} \sum_k |s_k - y_k|`, summed over pixels: for two classes the continuous ranked probability score of every
    pixel, which has gradients where masks do not meet. Both are unbiased in n.

    From random weights it collapses to empty masks: train with the method's own loss first.

    Args:
        draws: (B, n, K, *S) class probabilities, n >= 2.
        masks: (B, R, *S), class ids, -1 everywhere where a rater did not annotate the case.
        pixel_weight: of the pixel-wise score.
        smooth: of :func:`soft_jaccard_distance`.

    Returns:
        ``"loss"``, and the parts ``"ged"`` and ``"pixel_score"``: scalars.

    Raises:
        ValueError: for a single draw, or masks that are no class ids on the grid of the draws.

    Example:
        >>> masks = torch.tensor([[[[0, 1]], [[0, 0]]]])
        >>> kernel_score(F.one_hot(masks, 2).movedim(-1, 2).float(), masks)["ged"]
        tensor(-0.2500)
    """
    n, classes = draws.shape[1:3]
    if n < 2:
        raise ValueError("the kernel score of one draw says nothing of how draws differ: pass two or more.")
    masks = check_masks(masks, draws[:, 0], classes)
    weights = rater_weights(masks)  # (B, R)
    truth = F.one_hot(masks.long().clamp(min=0), classes).movedim(-1, 2).flatten(3)  # (B, R, K, P)
    s, y = draws.float().flatten(3), truth.float()
    apart = s.new_ones(n, n).fill_diagonal_(0) / (n * (n - 1))
    cross = weights[:, None] / n  # (B, 1, R)

    def score(among: Tensor, between: Tensor) -> Tensor:
        return (2 * between * cross).sum((1, 2)) - (among * apart).sum((1, 2))

    rows = torch.cat([s, y], dim=1)[:, :, 1:]  # the background is not scored
    distance = soft_jaccard_distance(rows, rows, smooth=smooth)  # (B, n + R, n + R)
    raters = (distance[:, n:, n:] * weights[:, :, None] * weights[:, None]).sum((1, 2))
    ged = (score(distance[:, :n, :n], distance[:, :n, n:]) - raters).mean()
    pixel_score = score(_total_variation(s, s), _total_variation(s, y)).mean()
    return {"loss": ged + pixel_weight * pixel_score, "ged": ged, "pixel_score": pixel_score}


def soft_jaccard_distance(a: Tensor, b: Tensor, *, smooth: float = 1.0) -> Tensor:
    r"""Return :math:`1 - (a \cdot b + c) / (|a| + |b| - a \cdot b + c)` of every pair, averaged over the classes.

    It is 1 - IoU for hard masks as c goes to 0. With c = 1 it is that of masks with one marked pixel more, so two empty masks
    are 0 apart, an empty mask still has a gradient towards a small one, and the distance stays of negative type.

    Args:
        a: (B, N, classes, P) in [0, 1].
        b: (B, M, classes, P).
        smooth: c, above 0.

    Returns:
        (B, N, M).
    """
    with torch.autocast(a.device.type, enabled=False):  # half precision would blur areas of thousands of pixels
        inner = torch.einsum("bncp,bmcp->bnmc", a, b)
    union = a.sum(-1)[:, :, None] + b.sum(-1)[:, None] - inner
    return (1 - (inner + smooth) / (union + smooth)).mean(-1)


def _total_variation(a: Tensor, b: Tensor) -> Tensor:
    """Sum over pixels of half the L1 distance of class probabilities: (B, N, M) for (B, N, K, P) and (B, M, K, P)."""
    rows = [0.5 * (row[:, None] - b).abs().sum((2, 3)) for row in a.unbind(1)]  # row by row, for the memory
    return torch.stack(rows, dim=1)
