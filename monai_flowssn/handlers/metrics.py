"""Ignite handlers of the metrics: attach one to an evaluator under the name that states its convention and N."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.handlers import IgniteMetricHandler

from monai_flowssn.metrics.cumulative import (
    AverageIoUMetric,
    CalibrationMetric,
    CaseMetric,
    DiversityMetric,
    GEDMetric,
    HMIoUMetric,
    NCCMetric,
    NLLMetric,
    RaterDiceMetric,
)


class CaseMetricHandler(IgniteMetricHandler):
    """Feed a metric with one value per case, and leave the values in ``engine.state.metric_details``.

    Args:
        output_transform: takes the engine's output to (draws, raters), e.g. MONAI's ``from_engine(("draws", "label"))``
            for label maps (N, *S), or ``from_engine(("pred", "label"))`` for soft draws (N, K, *S).
        save_details: whether to keep the value of each case for ``MetricsSaver``.
        options: the arguments of the metric: ``n``, and those of the function that computes it.
    """

    metric: type[CaseMetric]

    def __init__(self, output_transform: Callable = lambda x: x, save_details: bool = True, **options: Any) -> None:
        super().__init__(self.metric(**options), output_transform=output_transform, save_details=save_details)


class GEDHandler(CaseMetricHandler):
    """``GEDMetric`` of ("draws", "label")."""

    metric = GEDMetric


class HMIoUHandler(CaseMetricHandler):
    """``HMIoUMetric`` of ("draws", "label")."""

    metric = HMIoUMetric


class AverageIoUHandler(CaseMetricHandler):
    """``AverageIoUMetric`` of ("draws", "label")."""

    metric = AverageIoUMetric


class DiversityHandler(CaseMetricHandler):
    """``DiversityMetric`` of ("draws", "label")."""

    metric = DiversityMetric


class RaterDiceHandler(CaseMetricHandler):
    """``RaterDiceMetric`` of ("pred", "label"), or of ("draws", "label")."""

    metric = RaterDiceMetric


class NLLHandler(CaseMetricHandler):
    """``NLLMetric`` of ("pred", "label")."""

    metric = NLLMetric


class CalibrationHandler(CaseMetricHandler):
    """``CalibrationMetric`` of ("pred", "label")."""

    metric = CalibrationMetric


class NCCHandler(CaseMetricHandler):
    """``NCCMetric`` of ("pred", "label")."""

    metric = NCCMetric
