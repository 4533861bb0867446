"""A MONAI metric over the cases of a run."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from monai_flowssn.annotations import check_classes
from monai_flowssn.metrics.comparison import Comparison
from monai_flowssn.metrics.masks import check_probabilities
from monai_flowssn.metrics.pooling import pool


class CaseMetric(CumulativeIterationMetric):
    """Any metric of this library over the cases of a run.

    It takes batches, (B, N, ...) and (B, R, *S), or decollated lists of (N, ...) and (R, *S), where R may differ from
    case to case; draws are label maps (N, *S) or probabilities (N, K, *S). Several metrics that are given the same
    :class:`Comparison` objects instead of draws share its overlaps.

    The buffer holds the values per case, which MONAI's ``MetricsSaver`` writes as a csv. They are aggregated by the mean over the
    cases where the metric is defined (not NaN); a pooled metric has its parts per case (B, J + 1), which are added up over cases,
    and over processes, before its value is taken (:func:`pool`).

    Args:
        metric: a key of ``METRICS``: ged, diversity, hm_iou, average_iou, dice, thresholded, crps, existence, insight,
            surface, nll, ece or ncc.
        n: use the first n draws only, so that one run gives the metric at several N; all of them by default.
        num_classes: K, where draws are label maps.
        include_background: count class 0 as well.
        options: the conventions, keyword arguments of the metric's ``compute_`` function.

    Example:
        >>> metric = CaseMetric("ged", estimator="v", n=2)
        >>> _ = metric(torch.tensor([[[1, 1], [1, 1], [0, 0]]]), torch.tensor([[[1, 0]]]))
        >>> metric.aggregate()
        tensor(1.)
    """

    def __init__(
        self,
        metric: str,
        *,
        n: int | None = None,
        num_classes: int = 2,
        include_background: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if n is not None and n < 1:
            raise ValueError(f"n={n} must be at least 1: it is the number of draws to use.")
        check_classes(num_classes)
        self.metric, self.n, self.options = metric, n, options
        self.classes: dict[str, Any] = {"num_classes": num_classes, "include_background": include_background}
        # An option that the function refuses is refused now, and not at the first validation hours later.
        self._example().compute(metric, **options)

    def aggregate(self) -> Tensor:
        """The value over the cases seen so far, on all processes."""
        values = self.get_buffer()
        if values is None:
            raise ValueError("the metric has seen no case, but needs at least one: call it before aggregating.")
        return values.nanmean() if values.ndim == 1 else pool(values.double().sum(0)).to(values.dtype)

    def _compute_list(self, y_pred: Any, y: Any = None, **options: Any) -> Tensor:
        raters = [None] * len(y_pred) if y is None else y
        return torch.cat([self._of_case(p, r, **options) for p, r in zip(y_pred, raters, strict=True)])

    def _of_case(self, draws: Tensor | Comparison, raters: Tensor | None, **options: Any) -> Tensor:
        if isinstance(draws, Comparison):
            return self._values(draws)
        raters = raters if raters is None else raters.detach()[None]
        weights = options.pop("weights", None)
        return self._compute_tensor(draws.detach()[None], raters, weights=weights, **options)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **options: Any) -> Tensor:
        if y is None:
            raise ValueError("raters are None, but the metric compares draws with raters: pass (B, R, *S).")
        return self._values(compare(y_pred, y, **self.classes, **options))

    def _values(self, comparison: Comparison) -> Tensor:
        comparison = comparison if self.n is None else comparison.first(self.n)
        return comparison.compute(self.metric, **self.options)

    def _example(self) -> Comparison:
        k = self.classes["num_classes"]
        draws = torch.tensor([1, 0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
        pred = torch.full((1, 2, k, 2, 2), 1 / k)
        raters = torch.ones(1, self.options.get("rater", 0) + 1, 2, 2, dtype=torch.uint8)
        return Comparison(draws, raters, pred, **self.classes, spacing=[1.0, 1.0])


def compare(
    draws: Tensor, raters: Tensor, *, num_classes: int = 2, weights: Tensor | None = None, **options: Any
) -> Comparison:
    """Return the comparison of label maps (B, N, *S), or probabilities (B, N, K, *S), with raters (B, R, *S).

    Args:
        draws: either.
        raters: -1 everywhere = missing.
        num_classes: K, where draws are label maps.
        weights: probabilities of the draws (B, N).
        options: the others of :class:`Comparison`.
    """
    if draws.ndim == raters.ndim:
        return Comparison(draws, raters, num_classes=num_classes, weights=weights, **options)
    check_probabilities(draws, "draws", dim=2)
    return Comparison(draws.argmax(2), raters, draws, num_classes=draws.shape[2], weights=weights, **options)
