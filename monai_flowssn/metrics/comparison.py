"""Draws compared with raters: everything that several metrics share, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

from torch import Tensor

from monai_flowssn.annotations import check_classes
from monai_flowssn.metrics.collective import collective_insight_from_table
from monai_flowssn.metrics.dice import KINDS_OF_PAIRS, dice_from_iou, fused_dice
from monai_flowssn.metrics.existence import existence_from_table
from monai_flowssn.metrics.ged import diversity_from_iou, ged_from_iou
from monai_flowssn.metrics.iou import IoUTable, iou_table
from monai_flowssn.metrics.masks import draw_frequencies, draw_weights
from monai_flowssn.metrics.matching import average_iou_from_iou, hm_iou_from_iou
from monai_flowssn.metrics.soft import (
    check_soft,
    compute_ncc,
    compute_nll,
    ece_of_mean,
    log_likelihoods,
    mean_probability,
    nll_from_likelihoods,
)
from monai_flowssn.metrics.surface import compute_surface
from monai_flowssn.metrics.thresholded import compute_thresholded
from monai_flowssn.metrics.volume import crps_from_table
from monai_flowssn.options import check_option


class Choice(NamedTuple):
    """A metric together with the conventions chosen for it.

    Example:
        >>> Choice("dice", {"kind": "per_rater", "empty": "drop", "where": "rater", "pooled": True}).key
        'dice_per_rater_drop_where_rater_pooled'
    """

    metric: str
    options: dict[str, Any]

    @property
    def key(self) -> str:
        """The name of the convention, e.g. ``ged_v_one``."""
        return "_".join([self.metric, *(_word(*option) for option in self.options.items())])


@dataclass(frozen=True, eq=False)
class Comparison:
    """A batch of draws and raters whose overlaps are computed at most once, however many metrics are asked for.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        pred: soft draws (B, N, K, *S), which NLL, calibration and NCC need; with them the mean draw is the mean
            probability, and otherwise the share of the draws that chose each class.
        num_classes: K.
        include_background: count class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.
        spacing: distance of pixels along each axis; None for pixels.
        whole: the comparison of which this is the first draws.
    """

    draws: Tensor
    raters: Tensor
    pred: Tensor | None = None
    num_classes: int = 2
    include_background: bool = False
    weights: Tensor | None = None
    spacing: Sequence[float] | None = None
    whole: Comparison | None = None

    def __post_init__(self) -> None:
        check_classes(self.num_classes)

    def first(self, n: int) -> Comparison:
        """The comparison of the first n draws, which reads the overlaps of all of them."""
        if n > (size := self.draws.shape[1]):
            raise ValueError(f"got {size} draws, but the metric uses n={n}: draw more or lower n.")
        if n == size:
            return self
        if n not in self._firsts:
            pred, weights = (None if x is None else x[:, :n] for x in (self.pred, self.weights))
            self._firsts[n] = replace(self, draws=self.draws[:, :n], pred=pred, weights=weights, whole=self)
        return self._firsts[n]

    @cached_property
    def _firsts(self) -> dict[int, Comparison]:
        return {}

    @cached_property
    def table(self) -> IoUTable:
        """The overlaps of the batch."""
        if self.whole is not None:
            return self.whole.table.first(self.draws.shape[1])
        return iou_table(
            self.draws,
            self.raters,
            num_classes=self.num_classes,
            include_background=self.include_background,
            weights=self.weights,
        )

    @cached_property
    def soft(self) -> Tensor:
        """The soft draws, or an error where there are none."""
        if self.whole is not None:
            return self.whole.soft[:, : self.draws.shape[1]]
        if self.pred is None:
            raise ValueError("pred is None, but NLL, calibration and NCC need soft draws: give pred (B, N, K, *S).")
        if self.pred.shape[:3] != (*self.draws.shape[:2], self.num_classes):
            raise ValueError(
                f"pred has shape {tuple(self.pred.shape)}, but for draws {tuple(self.draws.shape)} and num_classes="
                f"{self.num_classes} it must be (B, N, K, *S): give the soft draws of these label maps."
            )
        return check_soft(self.pred, self.raters)[0]

    @cached_property
    def mean(self) -> Tensor:
        """Mean class probability over the draws (B, K, *S)."""
        return self.vote if self.pred is None else self.mean_probability

    @cached_property
    def mean_probability(self) -> Tensor:
        """The same, or an error where there are no soft draws."""
        return mean_probability(self.soft, draw_weights(self.weights, self.soft))

    @cached_property
    def vote(self) -> Tensor:
        """Share of the draws that chose each class (B, K, *S)."""
        weights = None if self.weights is None else self.table.weights
        return draw_frequencies(self.draws, self.num_classes, weights)

    @cached_property
    def log_likelihoods(self) -> Tensor:
        """``log p(y | draw n)`` (B, N, R)."""
        if self.whole is not None:
            return self.whole.log_likelihoods[:, : self.draws.shape[1]]
        return log_likelihoods(self.soft, self.raters)

    def evaluate(self, choices: Iterable[Choice]) -> dict[str, Tensor]:
        """Compute metrics per case, each under the key that names its convention.

        Args:
            choices: the metrics and their conventions.

        Returns:
            For each key a tensor (B,), or (B, J + 1) for what is pooled over cases (:func:`pool`).
        """
        return {choice.key: self.compute(choice.metric, **choice.options) for choice in choices}

    def compute(self, metric: str, **options: Any) -> Tensor:
        """Compute one metric per case.

        Args:
            metric: a key of ``METRICS``.
            options: of the function that computes it: estimator, empty, kind ...
        """
        check_option("metric", metric, list(METRICS))
        return METRICS[metric](self, **options)

    def _dice(self, *, kind: str = "majority", fusion: str = "mean", **options: Any) -> Tensor:
        check_option("fusion", fusion, ["mean", "vote"])
        options |= {"kind": kind, "num_classes": self.num_classes, "include_background": self.include_background}
        if kind in KINDS_OF_PAIRS:
            return dice_from_iou(self.table, self.raters, **options)
        fused = self.mean if fusion == "mean" else self.vote
        return fused_dice(fused.argmax(1), self.raters, **options)

    def _nll(self, **options: Any) -> Tensor:
        if options:  # another eps
            return compute_nll(self.soft, self.raters, weights=self.weights, **options)
        return nll_from_likelihoods(self.log_likelihoods, self.table.annotated, self.table.weights)

    def _ece(self, **options: Any) -> Tensor:
        return ece_of_mean(self.mean_probability, self.raters, include_background=self.include_background, **options)

    def _collective_insight(self, **options: Any) -> Tensor:
        return collective_insight_from_table(
            self.table, self.draws, self.raters, num_classes=self.num_classes, **options
        )

    def _surface(self, **options: Any) -> Tensor:
        options = {"spacing": self.spacing, "weights": self.weights, **options}
        return compute_surface(self.draws, self.raters, num_classes=self.num_classes, **options)


METRICS: dict[str, Callable[..., Tensor]] = {
    "ged": lambda c, **options: ged_from_iou(c.table, **options),
    "diversity": lambda c, **options: diversity_from_iou(c.table, **options),
    "hm_iou": lambda c, **options: hm_iou_from_iou(c.table, **options),
    "average_iou": lambda c, **options: average_iou_from_iou(c.table, **options),
    "dice": Comparison._dice,
    "thresholded": lambda c, **options: compute_thresholded(
        c.mean, c.raters, include_background=c.include_background, **options
    ),
    "crps": lambda c, **options: crps_from_table(c.table, **{"voxel": prod(c.spacing or [1.0]), **options}),
    "existence": lambda c, **options: existence_from_table(c.table, num_classes=c.num_classes, **options),
    "insight": Comparison._collective_insight,
    "surface": Comparison._surface,
    "nll": Comparison._nll,
    "ece": Comparison._ece,
    "ncc": lambda c, **options: compute_ncc(c.soft, c.raters, weights=c.weights, **options),
}
"""The metrics by name: functions of a comparison and of the conventions, which the ``compute_`` functions explain."""


def _word(name: str, value: Any) -> str:
    if name in ("where", "rater"):
        return f"{name}_{value}"
    if value is True:
        return name
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)}_{name}"
    return str(value)
