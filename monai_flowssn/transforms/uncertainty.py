"""From the draws of a case to its maps: mean, segmentation, entropies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from monai_flowssn.data.cases import case_title

__all__ = ["DrawsToMapsd", "collect_draws", "entropy"]


def entropy(probabilities: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Shannon entropy in nats, H[p] = -sum_k p_k log p_k, with 0 log 0 = 0.

    Args:
        probabilities: class probabilities, such as (K, *S).
        dim: the axis of the classes.

    Example:
        >>> float(entropy(torch.tensor([0.5, 0.5])))  # log 2
        0.6931471824645996
    """
    return torch.special.entr(probabilities).sum(dim)


def collect_draws(chunks: Iterable[torch.Tensor], labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Reduce draws to what their maps are made of, one draw at a time, so that they need not be held.

    Args:
        chunks: class probabilities of some draws of one case each, (M, K, *S), N draws in all.
        labels: (N, *S) uint8, which is filled with the arg max of every draw.

    Returns:
        ``labels``; ``mean`` (K, *S) and ``expected_entropy`` (*S), float32.
    """
    total = inner = torch.zeros(())
    made = 0
    for chunk in chunks:
        for draw in chunk.float():
            labels[made].copy_(draw.argmax(dim=0))
            total = total.add_(draw) if made else draw.clone()
            inner = inner.add_(entropy(draw)) if made else entropy(draw)
            made += 1
        del chunk, draw  # before the next is made
    if made != len(labels):
        raise ValueError(f"{made} draws came for label maps of {len(labels)}; they must be as many.")
    return {"labels": labels, "mean": total.div_(made), "expected_entropy": inner.div_(made)}


class DrawsToMapsd(Transform):
    """Adds the maps of a case that the rest reads; all carry the image's affine and meta data.

    `draws` (N, *S) uint8 label maps, arg max of every draw; `mean` (K - 1, *S) float32, the mean probability of the
    foreground classes (background is the rest, so that what `Invertd` pads with 0 is background); `segmentation` (1, *S)
    uint8, arg max of the mean of all K classes; `entropy`, `expected_entropy` and `mutual_information` (1, *S)
    float32, in nats, entropy = expected_entropy + mutual_information.

    Of N draws p_n they are H[1/N sum_n p_n]; 1/N sum_n H[p_n], what a draw itself leaves undecided; and the rest, the mutual
    information of class and draw (Depeweg et al. 2018, arXiv 1710.07283, where the draws are those of the weights): 0 where all
    draws agree, at most log min(N, K), with rounding below 0 clamped.

    Args:
        keys: key of the draws, class probabilities (N, K, *S), or of what :func:`collect_draws` makes of them.
        image_key: the image (C, *S) that the draws belong to.

    Raises:
        ValueError: for draws of another shape than the image, or that are not all numbers: their arg max would be background.
    """

    def __init__(self, keys: str = "pred", *, image_key: str = "image") -> None:
        self.keys = keys
        self.image_key = image_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Add the maps to one decollated case.

        Args:
            data: the case.

        Returns:
            The case with its maps.
        """
        image, pred = data[self.image_key], data[self.keys]
        if not isinstance(pred, Mapping):
            pred = pred.as_tensor() if isinstance(pred, MetaTensor) else pred
            _check_draws(pred, image)
            pred = collect_draws([pred], pred.new_empty((len(pred), *pred.shape[2:]), dtype=torch.uint8))
        _check_finite(pred["mean"], case_title(data))
        return {**data, **{name: _with_meta_of(image, values) for name, values in _maps(pred).items()}}


def _maps(collected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    mean, expected = collected["mean"], collected["expected_entropy"]
    total = entropy(mean)
    return {
        "draws": collected["labels"],
        "mean": mean[1:],
        "segmentation": mean.argmax(dim=0, keepdim=True).to(torch.uint8),
        "entropy": total[None],
        "expected_entropy": expected[None],
        "mutual_information": (total - expected).clamp_min(0)[None],
    }


def _check_draws(pred: torch.Tensor, image: torch.Tensor) -> None:
    if pred.ndim not in (4, 5) or len(pred) == 0 or not 2 <= pred.shape[1] <= 256:
        raise ValueError(
            f"Draws of one case have the shape (N, K, *S), N >= 1, 2 <= K <= 256, in 2-D or 3-D; got "
            f"{tuple(pred.shape)}. Decollate the batch first; for a single map (K, *S) pass `pred[None]`."
        )
    if pred.shape[2:] != image.shape[1:]:
        raise ValueError(
            f"Draws and their image have the same size; got {tuple(pred.shape[2:])} and {tuple(image.shape[1:])}. "
            "Compute the maps before `Invertd`, then invert the maps."
        )


def _check_finite(mean: torch.Tensor, title: str) -> None:
    wrong = ~mean.isfinite().all(dim=0)  # one draw that is no number makes the mean none
    if wrong.any():
        raise ValueError(
            f"{title}: the network's draws are NaN or infinite at {int(wrong.sum())} of {wrong.numel()} pixels, but "
            "probabilities are finite. Take weights from before the training went wrong, or draw in float32 on a GPU (amp of the "
            "evaluator)."
        )


def _with_meta_of(image: torch.Tensor, values: torch.Tensor) -> MetaTensor:
    if not isinstance(image, MetaTensor):
        return MetaTensor(values)
    return MetaTensor(values, meta=dict(image.meta), applied_operations=list(image.applied_operations))
