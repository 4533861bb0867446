"""Ignite handlers of the metrics: attach one to an evaluator under the name that states its convention and N."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_flowssn.metrics.comparison import Comparison
from monai_flowssn.metrics.cumulative import CaseMetric


class CaseMetricHandler(IgniteMetricHandler):
    """Feed a metric with one value per case, and leave the values in ``engine.state.metric_details``.

    Args:
        metric: its name, a key of :data:`~monai_flowssn.metrics.METRICS`, such as ``"ged"``.
        output_transform: takes the engine's output to (draws, raters): MONAI's ``from_engine(("draws", "label"))`` for label
            maps (N, *S), ``from_engine(("pred", "label"))`` for soft draws (N, K, *S), or one :class:`CompareOnce` for several
            handlers.
        save_details: whether to keep the value of each case for ``MetricsSaver``.
        options: those of :class:`~monai_flowssn.metrics.CaseMetric`: ``n``, ``num_classes`` and the conventions.

    Example:
        >>> handler = CaseMetricHandler("ged", estimator="u", n=16)
    """

    def __init__(
        self, metric: str, output_transform: Callable = lambda x: x, save_details: bool = True, **options: Any
    ) -> None:
        super().__init__(CaseMetric(metric, **options), output_transform=output_transform, save_details=save_details)


class CompareOnce:
    """Take an evaluator's decollated output to comparisons, the same ones for every handler that asks for it.

    So that the overlaps of a case are computed once, however many metrics there are.

    Args:
        num_classes: K.
        draws: key of the label maps (N, *S).
        raters: key of the raters (R, *S), from whose affine the spacing comes.
        pred: key of the soft draws (N, K, *S), which may be missing; ``meta["weights"]`` are the probabilities of the draws (N,)
            where they are not equally likely.
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        draws: str = "draws",
        raters: str = "label",
        pred: str = "pred",
    ) -> None:
        self.num_classes = num_classes
        self.draws, self.raters, self.pred = draws, raters, pred
        self._output: Any = None
        self._comparisons: list[Comparison] = []

    def __call__(self, output: Sequence[Mapping[str, Any]]) -> tuple[list[Comparison], None]:
        """Return the comparison of each case, a batch of one, in the place of draws; there are no raters beside it."""
        if output is not self._output:
            self._output, self._comparisons = output, [self._compare(item) for item in output]
        return self._comparisons, None

    def _compare(self, item: Mapping[str, Any]) -> Comparison:
        draws, raters, pred = (_batch_of_one(item.get(key)) for key in (self.draws, self.raters, self.pred))
        weights = _batch_of_one(getattr(item.get(self.pred), "meta", {}).get("weights"))
        if draws is None or raters is None:
            raise ValueError(
                f"the evaluator's output has {sorted(item)}, but metrics need {self.draws!r} and {self.raters!r}: decollate the "
                "output and add the draws' label maps."
            )
        spacing = None
        if isinstance(item[self.raters], MetaTensor):
            spacing = item[self.raters].pixdim[: raters.ndim - 2].tolist()
        return Comparison(draws, raters, pred, self.num_classes, weights=weights, spacing=spacing)


def _batch_of_one(values: Any) -> Tensor | None:
    return None if values is None else convert_to_tensor(values, track_meta=False).detach()[None]
