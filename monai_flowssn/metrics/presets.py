"""Published evaluation protocols, bundled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from monai_flowssn.metrics.dice import compute_dice
from monai_flowssn.metrics.ged import diversity_from_iou, ged_from_iou
from monai_flowssn.metrics.iou import IoUTable, iou_table
from monai_flowssn.metrics.matching import average_iou_from_iou, hm_iou_from_iou
from monai_flowssn.metrics.soft import compute_ece, compute_ncc, compute_nll
from monai_flowssn.options import check_option


class Choice(NamedTuple):
    """A metric together with the conventions chosen for it."""

    metric: str
    options: dict[str, Any]

    @property
    def key(self) -> str:
        """The name of the convention, e.g. ``ged_v_one``."""
        return "_".join([self.metric, *map(str, self.options.values())])


@dataclass(frozen=True)
class Preset:
    """A published evaluation protocol.

    Args:
        source: whose protocol it is.
        choices: the metrics and their conventions.
    """

    source: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Comparison:
    """A batch of draws and raters whose IoUs are computed at most once, however many metrics are asked for.

    Args:
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        pred: soft draws (B, N, K, *S), which NLL, calibration and NCC need; with them the mean draw of Dice is the
            argmax of the mean probability.
        num_classes: K.
        include_background: count class 0 as well.
    """

    draws: Tensor
    raters: Tensor
    pred: Tensor | None = None
    num_classes: int = 2
    include_background: bool = False

    @cached_property
    def table(self) -> IoUTable:
        """The IoUs of the batch."""
        return iou_table(
            self.draws, self.raters, num_classes=self.num_classes, include_background=self.include_background
        )

    @property
    def soft(self) -> Tensor:
        """The soft draws, or an error where there are none."""
        if self.pred is None:
            raise ValueError("pred is None, but NLL, calibration and NCC need soft draws: give pred (B, N, K, *S).")
        return self.pred

    def evaluate(self, choices: Iterable[Choice]) -> dict[str, Tensor]:
        """Compute metrics per case, each under the key that names its convention.

        Args:
            choices: the metrics and their conventions.

        Returns:
            For each key a tensor (B,).
        """
        return {choice.key: _METRICS[choice.metric](self, **choice.options) for choice in choices}

    def _dice(self, **options: Any) -> Tensor:
        return compute_dice(
            self.draws,
            self.raters,
            num_classes=self.num_classes,
            include_background=self.include_background,
            mean=None if self.pred is None else self.pred.mean(1),
            **options,
        )

    def _ece(self, **options: Any) -> Tensor:
        return compute_ece(self.soft, self.raters, include_background=self.include_background, **options)


_METRICS: dict[str, Callable[..., Tensor]] = {
    "ged": lambda c, **options: ged_from_iou(c.table, **options),
    "diversity": lambda c, **options: diversity_from_iou(c.table, **options),
    "hm_iou": lambda c, **options: hm_iou_from_iou(c.table, **options),
    "average_iou": lambda c, **options: average_iou_from_iou(c.table, **options),
    "dice": Comparison._dice,
    "nll": lambda c, **options: compute_nll(c.soft, c.raters, **options),
    "ece": Comparison._ece,
    "ncc": lambda c, **options: compute_ncc(c.soft, c.raters, **options),
}


def _ged(estimator: str, empty: str) -> Choice:
    return Choice("ged", {"estimator": estimator, "empty": empty})


def _diversity(empty: str) -> Choice:
    return Choice("diversity", {"estimator": "v", "empty": empty})


def _hm_iou(matching: str, empty: str) -> Choice:
    return Choice("hm_iou", {"matching": matching, "empty": empty})


def _dice(kind: str, empty: str) -> Choice:
    return Choice("dice", {"kind": kind, "empty": empty})


_NLL, _NCC = Choice("nll", {}), Choice("ncc", {})

PRESETS: dict[str, Preset] = {
    "standard": Preset(
        "everything that a reader needs to compare: both estimators, both matchings, likelihood, calibration",
        (
            _ged("v", "one"),
            _ged("u", "one"),
            _diversity("one"),
            _hm_iou("duplicate", "one"),
            _hm_iou("best", "one"),
            _dice("majority", "one"),
            _NLL,
            Choice("ece", {"num_bins": 10}),
        ),
    ),
    "flow_ssn": Preset(
        "Flow-SSN, arXiv 2507.18838",
        (_ged("v", "one"), _diversity("one"), _hm_iou("best", "one"), _dice("majority", "one")),
    ),
    "phiseg": Preset("PHiSeg, arXiv 1906.04045", (_ged("v", "one"), _NCC, _dice("per_rater", "drop"))),
    "ssn": Preset("SSN, arXiv 2006.06015", (_ged("v", "one"), _diversity("one"), _dice("per_rater", "drop"))),
    "kohl": Preset("Probabilistic U-Net, arXiv 1806.05034", (_ged("v", "drop"), _hm_iou("duplicate", "drop"))),
    "nf_punet_excl": Preset(
        "NF-PUNet, arXiv 2108.02155, empty pairs excluded",
        (_ged("v", "drop"), _hm_iou("duplicate", "drop"), Choice("average_iou", {"empty": "drop"})),
    ),
    "nf_punet_incl": Preset(
        "NF-PUNet, arXiv 2108.02155, empty pairs included",
        (_ged("v", "one"), _hm_iou("duplicate", "one"), Choice("average_iou", {"empty": "one"})),
    ),
    "cflow": Preset("cFlow Net, arXiv 2006.02683", (_ged("v", "one"), _dice("single", "one"), _NLL)),
    "dpersona": Preset("D-Persona and the MMIS code", (_ged("v", "zero"), _hm_iou("best", "zero"))),
    "cfm": Preset("conditional flow matching, arXiv 2507.22418", (_dice("majority", "one"),)),
}


def evaluate_preset(
    name: str,
    draws: Tensor,
    raters: Tensor,
    *,
    pred: Tensor | None = None,
    num_classes: int = 2,
    include_background: bool = False,
) -> dict[str, Tensor]:
    """Compute the metrics of a published protocol per case; state N beside them.

    Args:
        name: a key of ``PRESETS``.
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        pred: soft draws (B, N, K, *S); ``standard``, ``phiseg`` and ``cflow`` need them.
        num_classes: K.
        include_background: count class 0 as well.

    Returns:
        For each metric a tensor (B,), under a key that names the convention.

    Example:
        >>> import torch
        >>> draws = raters = torch.tensor([[[1, 1, 0, 0], [0, 1, 0, 0]]])
        >>> evaluate_preset("kohl", draws, raters)
        {'ged_v_drop': tensor([0.]), 'hm_iou_duplicate_drop': tensor([1.])}
    """
    check_option("preset", name, list(PRESETS))
    comparison = Comparison(draws, raters, pred, num_classes, include_background)
    return comparison.evaluate(PRESETS[name].choices)
