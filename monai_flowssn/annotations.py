"""The rule of -1: a mask that is -1 everywhere says that this rater did not annotate this case.

Losses, metrics and transforms ask here who annotated, how much each rater counts, and whether maps hold class ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import convert_to_tensor
from torch import Tensor

__all__ = [
    "MISSING",
    "annotated_raters",
    "check_classes",
    "check_labels",
    "check_masks",
    "comparable",
    "pick_rater",
    "rater_weights",
]

MISSING = -1
MAX_CLASSES = 256  # label maps of draws are bytes
#: Types that PyTorch cannot compare, and such as can hold their values.
_WIDER = {torch.bool: torch.uint8, torch.uint16: torch.int32, torch.uint32: torch.int64}


def annotated_raters(masks: Tensor, *, needed: bool = False, cases: Sequence[str] | None = None) -> Tensor:
    """Say which raters annotated which case: those whose mask is not -1 everywhere.

    Args:
        masks: (B, R, *S), class ids, -1 everywhere where a rater did not annotate the case.
        needed: whether every case must have one.
        cases: what to call the cases in an error, by default their places in the batch.

    Returns:
        (B, R), boolean.

    Raises:
        ValueError: if a mask is -1 in places; if one is needed and a case has none.

    Example:
        >>> annotated_raters(torch.tensor([[[-1, -1], [0, 1]]]))
        tensor([[False,  True]])
    """
    low, high = masks.flatten(2).aminmax(dim=2) if masks.numel() else (masks.new_full(masks.shape[:2], MISSING),) * 2
    annotated = low >= 0  # (B, R)
    partly = ~annotated & (high >= 0)
    bare = ~annotated.any(dim=1) if needed else torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
    if not (partly.any(dim=1) | bare).any():  # one question: each is a wait for a GPU
        return annotated
    names = cases or [f"case {b} of the batch" for b in range(len(masks))]
    if partly.any():
        case, rater = partly.nonzero()[0].tolist()
        raise ValueError(
            f"{names[case]}: the mask of rater {rater} is -1 in places; -1 means that a rater did not annotate the case and "
            "fills the whole mask: give the other pixels a class id."
        )
    raise ValueError(
        f"{names[int(bare.nonzero()[0])]}: none of the {masks.shape[1]} raters annotated it (every mask is -1); leave the case "
        "out of training and evaluation."
    )


def rater_weights(masks: Tensor) -> Tensor:
    """Return equal weights for the annotated raters of each case, 0 for the others.

    Args:
        masks: (B, R, *S), class ids, -1 everywhere where a rater did not annotate the case.

    Returns:
        (B, R), summing to 1 over R.

    Raises:
        ValueError: if a case has no annotated rater or a mask is -1 in places.

    Example:
        >>> rater_weights(torch.tensor([[[0, 0], [-1, -1], [0, 1]]]))
        tensor([[0.5000, 0.0000, 0.5000]])
    """
    annotated = annotated_raters(masks, needed=True)
    return annotated / annotated.sum(dim=1, keepdim=True)


def pick_rater(masks: Tensor, n: int = 1) -> Tensor:
    """Choose ``n`` annotations per case, each uniformly from those that exist.

    With ``n > 1`` the choice is without replacement until every annotated rater of the case has been used.

    Args:
        masks: (B, R, *S), class ids, -1 everywhere where a rater did not annotate the case.
        n: annotations per case.

    Returns:
        (B, n, *S).

    Raises:
        ValueError: if a case has no annotated rater or a mask is -1 in places.

    Example:
        >>> pick_rater(torch.tensor([[[[-1]], [[1]]]]))
        tensor([[[[1]]]])
    """
    annotated = annotated_raters(masks, needed=True)  # (B, R)
    counts = annotated.sum(dim=1, keepdim=True)  # (B, 1)
    keys = torch.rand(annotated.shape, device=masks.device) - annotated.float()  # annotated ones sort first, shuffled
    order = keys.argsort(dim=1)  # (B, R)
    turn = torch.arange(n, device=masks.device) % counts  # (B, n)
    chosen = order.gather(1, turn)  # (B, n)
    return masks[torch.arange(len(masks), device=masks.device)[:, None], chosen]


def comparable(maps: Tensor) -> Tensor:
    """Return label maps (.., *S) of any type in one that PyTorch compares: uint16 as int32, for example."""
    return maps.to(_WIDER.get(maps.dtype, maps.dtype))


def check_classes(num_classes: int) -> None:
    """Refuse a number of classes that is none, such as a number of pixels, over which a loop would not end."""
    if not isinstance(num_classes, int) or not 2 <= num_classes <= MAX_CLASSES:
        raise ValueError(
            f"Got num_classes={num_classes!r}; it must be a whole number from 2, because the background counts as a class, to "
            f"{MAX_CLASSES}: give the number of classes."
        )


def check_labels(maps: Tensor, name: str, num_classes: int, *, may_miss: bool = True) -> Tensor:
    """Return label maps as a plain tensor, after checking their dimensions and ids.

    Args:
        maps: (B, M, *S), integers from -1 to K - 1 (floating point is accepted where every value is whole).
        name: what to call them in an error.
        num_classes: K.
        may_miss: whether a map may be missing, that is -1.

    Returns:
        The same maps, (B, M, *S), without metadata.

    Raises:
        ValueError: if they are soft, lack a dimension, or hold another id.
    """
    maps = convert_to_tensor(maps, track_meta=False)
    if maps.ndim < 3 or 0 in maps.shape:
        raise ValueError(
            f"{name} have shape {tuple(maps.shape)}, but must be non-empty (B, maps, *S): add the missing dimension, such as "
            f"{name}[:, None] for one rater."
        )
    check_classes(num_classes)
    if maps.is_floating_point() and not torch.equal(maps, maps.round()):
        raise ValueError(f"{name} hold fractions or NaN, but must hold class ids: take the argmax or round them first.")
    maps = comparable(maps)
    low, high = (int(v) for v in maps.aminmax())
    if high >= num_classes:
        raise ValueError(
            f"{name} hold class id {high}, but ids must be below num_classes={num_classes}: raise num_classes or remap."
        )
    if low < (MISSING if may_miss else 0):
        rule = "only -1 (not annotated) may be negative" if may_miss else "draws are never missing, so none is negative"
        raise ValueError(f"{name} hold class id {low}, but {rule}: remap the ids.")
    return maps


def check_masks(masks: Tensor, image: Tensor, num_classes: int) -> Tensor:
    """Return the masks of a loss as a plain tensor, after checking that they are class ids on the grid of the image.

    Args:
        masks: (B, R, *S), class ids, -1 everywhere where a rater did not annotate the case.
        image: (B, C, *S).
        num_classes: K.

    Raises:
        ValueError: as of :func:`check_labels`, and if B or *S differ, which might broadcast.
    """
    if masks.ndim != image.ndim or masks.shape[:1] != image.shape[:1] or masks.shape[2:] != image.shape[2:]:
        raise ValueError(
            f"masks have shape {tuple(masks.shape)}, the image {tuple(image.shape)}; they must be (B, R, *S) and (B, C, *S) with "
            "the same B and *S: masks[:, None] for one rater, and resample masks onto their image."
        )
    return check_labels(masks, "masks", num_classes)
