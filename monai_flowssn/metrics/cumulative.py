"""MONAI metrics over the cases of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from monai_flowssn.metrics.dice import compute_dice
from monai_flowssn.metrics.ged import compute_diversity, compute_ged
from monai_flowssn.metrics.matching import compute_average_iou, compute_hm_iou
from monai_flowssn.metrics.soft import compute_ece, compute_ncc, compute_nll


class CaseMetric(CumulativeIterationMetric):
    """A metric with one value per case, aggregated by the mean over the cases where it is defined (not NaN).

    It takes batches, (B, N, ...) and (B, R, *S), or decollated lists of (N, ...) and (R, *S), where R may differ from
    case to case. The buffer holds the values per case, which MONAI's ``MetricsSaver`` writes as a csv.

    Args:
        n: use the first n draws only, so that one run gives the metric at several N; all of them by default.
        options: the keyword arguments of ``compute``.
    """

    compute: Callable[..., Tensor]
    """The function of (draws, raters) or (pred, raters) that gives the values (B,)."""

    _example: tuple[int, ...] = (1, 2, 1)  # draws (B, N, *S)

    def __init__(self, *, n: int | None = None, **options: Any) -> None:
        super().__init__()
        if n is not None and n < 1:
            raise ValueError(f"n={n} must be at least 1: it is the number of draws to use.")
        self.n = n
        self.options = options
        # An option that the function refuses is refused now, and not at the first validation hours later.
        draws = torch.zeros(self._example, dtype=torch.float if len(self._example) > 3 else torch.uint8)
        self._values(draws, torch.zeros(1, options.get("rater", 0) + 1, 1, dtype=torch.uint8))

    def aggregate(self) -> Tensor:
        """Mean over the cases seen so far, on all processes."""
        values = self.get_buffer()
        if values is None:
            raise ValueError("the metric has seen no case, but needs at least one: call it before aggregating.")
        return values.nanmean()

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        if y is None:
            raise ValueError("raters are None, but the metric compares draws with raters: pass (B, R, *S).")
        if self.n is not None and y_pred.shape[1] < self.n:
            raise ValueError(f"got {y_pred.shape[1]} draws, but the metric uses n={self.n}: draw more or lower n.")
        return self._values(y_pred[:, : self.n], y)

    def _values(self, draws: Tensor, raters: Tensor) -> Tensor:
        return type(self).compute(draws, raters, **self.options)


class GEDMetric(CaseMetric):
    """Generalised energy distance, see ``compute_ged``.

    Example:
        >>> metric = GEDMetric(estimator="v", n=2)
        >>> _ = metric(torch.tensor([[[1, 1], [1, 1], [0, 0]]]), torch.tensor([[[1, 0]]]))
        >>> metric.aggregate()
        tensor(1.)
    """

    compute = staticmethod(compute_ged)


class HMIoUMetric(CaseMetric):
    """Hungarian-matched IoU, see ``compute_hm_iou``."""

    compute = staticmethod(compute_hm_iou)


class AverageIoUMetric(CaseMetric):
    """Mean IoU over all draw-rater pairs, see ``compute_average_iou``."""

    compute = staticmethod(compute_average_iou)


class DiversityMetric(CaseMetric):
    """Expected distance between two draws, see ``compute_diversity``; the raters are not used."""

    compute = staticmethod(compute_diversity)

    def _values(self, draws: Tensor, raters: Tensor) -> Tensor:
        return compute_diversity(draws, **self.options)


class RaterDiceMetric(CaseMetric):
    """Dice against several raters, see ``compute_dice``.

    Given soft draws (B, N, K, *S) instead of label maps, the mean draw is the argmax of the mean probability.
    """

    compute = staticmethod(compute_dice)

    def _values(self, draws: Tensor, raters: Tensor) -> Tensor:
        if draws.ndim == raters.ndim + 1:
            return compute_dice(draws.argmax(2), raters, mean=draws.mean(1), **self.options)
        return compute_dice(draws, raters, **self.options)


class NLLMetric(CaseMetric):
    """Negative log-likelihood of soft draws, see ``compute_nll``."""

    compute = staticmethod(compute_nll)
    _example = (1, 2, 2, 1)


class CalibrationMetric(CaseMetric):
    """Calibration error of the mean of soft draws, see ``compute_ece``."""

    compute = staticmethod(compute_ece)
    _example = (1, 2, 2, 1)


class NCCMetric(CaseMetric):
    """PHiSeg's correlation of soft draws, see ``compute_ncc``."""

    compute = staticmethod(compute_ncc)
    _example = (1, 2, 2, 1)
