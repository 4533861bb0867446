"""The metrics that every evaluation reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from monai.handlers import from_engine
from monai.utils import ensure_tuple

from monai_flowssn.handlers.metrics import (
    AverageIoUHandler,
    CalibrationHandler,
    CaseMetricHandler,
    DiversityHandler,
    GEDHandler,
    HMIoUHandler,
    NCCHandler,
    NLLHandler,
    RaterDiceHandler,
)
from monai_flowssn.metrics.presets import PRESETS, Choice
from monai_flowssn.options import check_option

__all__ = ["standard_metrics"]


def standard_metrics(
    *,
    num_classes: int = 2,
    draws: Sequence[int] = (16, 100),
    split: str = "test",
    ged_draws: Sequence[int] = (),
    presets: str | Sequence[str] = (),
) -> dict[str, CaseMetricHandler]:
    """Return the standard metrics at several numbers of draws, by names that state convention and N.

    Label maps are read from ``draws`` (N, *S), soft draws from ``pred`` (N, K, *S), raters from ``label`` (R, *S). Two empty
    masks have IoU and Dice 1, unless a name says drop or zero. Each N uses the first N draws of a case.

    Args:
        num_classes: K, the background included.
        draws: the values of N; the evaluator must draw at least the largest.
        split: prefix of the names.
        ged_draws: further values of N for the GED alone: its course with the number of draws. ``ged_u`` needs two.
        presets: published protocols whose metrics are added (:data:`~monai_flowssn.metrics.PRESETS`).

    Raises:
        ValueError: for an unknown preset.

    Example:
        >>> list(standard_metrics(draws=[16], presets=["kohl"]))[:3]
        ['test_ged_v_n16', 'test_ged_u_n16', 'test_diversity_v_n16']
        >>> list(standard_metrics(draws=[16], presets=["kohl"]))[-2:]
        ['test_ged_v_drop_n16', 'test_hm_iou_duplicate_drop_n16']
    """
    protocols = ensure_tuple(presets)
    for preset in protocols:
        check_option("preset", preset, list(PRESETS))
    maps: dict[str, Any] = {"output_transform": from_engine(["draws", "label"]), "num_classes": num_classes}
    soft: dict[str, Any] = {"output_transform": from_engine(["pred", "label"])}
    handlers: dict[str, Callable[..., CaseMetricHandler]] = {
        "ged": partial(GEDHandler, **maps),
        "diversity": partial(DiversityHandler, **maps),
        "hm_iou": partial(HMIoUHandler, **maps),
        "average_iou": partial(AverageIoUHandler, **maps),
        "dice": partial(RaterDiceHandler, num_classes=num_classes, **soft),
        "nll": partial(NLLHandler, **soft),
        "ece": partial(CalibrationHandler, **soft),
        "ncc": partial(NCCHandler, **soft),
    }
    choices = {_name(choice): choice for preset in ("standard", *protocols) for choice in PRESETS[preset].choices}
    names = [(name, n) for n in draws for name in choices]
    names += [(name, n) for n in ged_draws if n not in draws for name in ("ged_v", "ged_u")[:n]]
    return {f"{split}_{name}_n{n}": handlers[choices[name].metric](n=n, **choices[name].options) for name, n in names}


def _name(choice: Choice) -> str:
    return choice.key.removesuffix("_one")  # the convention of all that do not say
