"""The metrics that every evaluation reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from monai.handlers import from_engine

from monai_flowssn.handlers.metrics import (
    CalibrationHandler,
    CaseMetricHandler,
    DiversityHandler,
    GEDHandler,
    HMIoUHandler,
    NLLHandler,
    RaterDiceHandler,
)

__all__ = ["standard_metrics"]


def standard_metrics(
    *, num_classes: int = 2, draws: Sequence[int] = (16, 100), split: str = "test", ged_draws: Sequence[int] = ()
) -> dict[str, CaseMetricHandler]:
    """Return the standard metrics at several numbers of draws, by names that state convention and N.

    Label maps are read from ``draws`` (N, *S), soft draws from ``pred`` (N, K, *S), raters from ``label`` (R, *S). Two empty
    masks have IoU 1. Each N uses the first N draws of a case.

    Args:
        num_classes: K, the background included.
        draws: the values of N; the evaluator must draw at least the largest.
        split: prefix of the names.
        ged_draws: further values of N for the GED alone: its course with the number of draws. ``ged_u`` needs two.

    Example:
        >>> list(standard_metrics(draws=[16]))[:3]
        ['test_ged_v_n16', 'test_ged_u_n16', 'test_diversity_v_n16']
    """
    maps: dict[str, Any] = {"output_transform": from_engine(["draws", "label"]), "num_classes": num_classes}
    soft: dict[str, Any] = {"output_transform": from_engine(["pred", "label"])}
    builders: dict[str, Callable[..., CaseMetricHandler]] = {
        "ged_v": partial(GEDHandler, estimator="v", **maps),
        "ged_u": partial(GEDHandler, estimator="u", **maps),
        "diversity_v": partial(DiversityHandler, estimator="v", **maps),
        "hm_iou_duplicate": partial(HMIoUHandler, matching="duplicate", **maps),
        "hm_iou_best": partial(HMIoUHandler, matching="best", **maps),
        "dice_majority": partial(RaterDiceHandler, kind="majority", num_classes=num_classes, **soft),
        "nll": partial(NLLHandler, **soft),
        "ece_10": partial(CalibrationHandler, num_bins=10, **soft),
    }
    names = [(name, n) for n in draws for name in builders]
    names += [(name, n) for n in ged_draws if n not in draws for name in ("ged_v", "ged_u")[:n]]
    return {f"{split}_{name}_n{n}": builders[name](n=n) for name, n in names}
