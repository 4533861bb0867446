"""The metrics that every evaluation reports."""

from __future__ import annotations

from collections.abc import Sequence

from monai.utils import ensure_tuple

from monai_flowssn.handlers.metrics import CaseMetricHandler, CompareOnce
from monai_flowssn.metrics.comparison import Choice
from monai_flowssn.metrics.presets import PRESETS
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

    Label maps are read from ``draws`` (N, *S), soft draws and the weights they may have from ``pred`` (N, K, *S), raters from
    ``label`` (R, *S). Two empty masks have IoU and Dice 1, unless a name says drop or zero. Each N uses the
    first N draws of a case; all metrics share what they compute of it.

    Args:
        num_classes: K, the background included.
        draws: the values of N; the evaluator must draw at least the largest.
        split: prefix of the names.
        ged_draws: further values of N for the GED alone: its course with the number of draws. ``ged_u`` needs two.
        presets: published protocols whose metrics are added (:data:`~monai_flowssn.metrics.PRESETS`), at their own numbers of
            draws as far as these are drawn.

    Raises:
        ValueError: for an unknown preset.

    Example:
        >>> list(standard_metrics(draws=[16], presets=["kohl"]))[:3]
        ['test_ged_v_n16', 'test_ged_u_n16', 'test_diversity_v_n16']
        >>> list(standard_metrics(draws=[16, 100], presets=["p2sam"]))[-1:]
        ['test_dice_max_pair_n16']
    """
    choices = [(n, choice) for n in draws for choice in PRESETS["standard"].choices]
    ged = PRESETS["standard"].choices[:2]
    choices += [(n, choice) for n in ged_draws if n not in draws for choice in ged[:n]]
    for preset in ensure_tuple(presets):
        check_option("preset", preset, list(PRESETS))
        protocol = PRESETS[preset]
        choices += [(n, c) for n in protocol.draws_within(max(draws)) for c in protocol.choices_for(num_classes)]
    shared = CompareOnce(num_classes=num_classes)
    return {
        f"{split}_{_name(choice)}_n{n}": CaseMetricHandler(
            choice.metric, shared, n=n, num_classes=num_classes, **choice.options
        )
        for n, choice in choices
    }


def _name(choice: Choice) -> str:
    return choice.key.replace("_one", "")  # the convention of all that do not say
