"""Published evaluation protocols: what each paper's public code computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from monai_flowssn.metrics.comparison import Choice, Comparison
from monai_flowssn.options import check_option


@dataclass(frozen=True)
class Preset:
    """A published evaluation protocol.

    Args:
        paper: whose protocol it is.
        code: repository at commit, and the files and functions that compute it; empty for our own.
        draws: the numbers of draws for which it is printed.
        choices: the metrics and their conventions; foreground classes only, all cases where a metric is defined count alike
            unless it is pooled.
        multiclass: the same for K > 2, where it differs.
        notes: where the code departs from a plain reading, and what is not taken over.
    """

    paper: str
    code: str
    draws: tuple[int, ...]
    choices: tuple[Choice, ...]
    multiclass: tuple[Choice, ...] = ()
    notes: str = ""

    def choices_for(self, num_classes: int) -> tuple[Choice, ...]:
        """The metrics and their conventions for K classes."""
        return self.multiclass if self.multiclass and num_classes > 2 else self.choices

    def draws_within(self, most: int) -> list[int]:
        """The published numbers of draws of which an evaluation has enough, or what it has."""
        return [n for n in self.draws if n <= most] or [most]


def _ged(estimator: str, empty: str) -> Choice:
    return Choice("ged", {"estimator": estimator, "empty": empty})


def _diversity(empty: str) -> Choice:
    return Choice("diversity", {"estimator": "v", "empty": empty})


def _hm_iou(matching: str, empty: str) -> Choice:
    return Choice("hm_iou", {"matching": matching, "empty": empty})


def _dice(kind: str, empty: str, **options: Any) -> Choice:
    return Choice("dice", {"kind": kind, "empty": empty, **options})


_PERSONA_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)

PRESETS: dict[str, Preset] = {
    "standard": Preset(
        "everything that a reader needs to compare: both estimators, both matchings, likelihood, calibration",
        code="",
        draws=(16, 100),
        choices=(
            _ged("v", "one"),
            _ged("u", "one"),
            _diversity("one"),
            _hm_iou("duplicate", "one"),
            _hm_iou("best", "one"),
            _dice("majority", "one"),
            Choice("nll", {}),
            Choice("ece", {"num_bins": 10}),
        ),
    ),
    "extended": Preset(
        "what radiology groups ask for besides: area, existence, empty masks kept apart, levels, best draws",
        code="",
        draws=(16, 100),
        choices=(
            Choice("crps", {"estimator": "v"}),
            Choice("crps", {"estimator": "u"}),
            Choice("existence", {"kind": "brier"}),
            Choice("existence", {"kind": "calibration"}),
            Choice("existence", {"kind": "draws"}),
            Choice("existence", {"kind": "raters"}),
            _dice("majority", "one", where="any"),
            _dice("expected", "one"),
            _dice("max", "one"),
            _dice("match", "one"),
            *(Choice("thresholded", {"score": score}) for score in ("dice", "brier", "ece")),
            *(Choice("insight", {"part": part}) for part in ("ci", "sensitivity", "dice_max", "agreement")),
        ),
    ),
    "flow_ssn": Preset(
        "Flow-SSN, De Sousa Ribeiro et al. 2025, arXiv 2507.18838",
        code="biomedia-mira/flow-ssn@bb9c919: flowssn/eval/metrics.py, flowssn/train.py (eval_batch)",
        draws=(16, 100),
        choices=(
            _ged("v", "one"),
            _diversity("one"),
            _hm_iou("best", "one"),
            _dice("plurality", "one", fusion="vote"),
        ),
        multiclass=(
            _ged("v", "drop_case"),
            _diversity("drop_case"),
            _hm_iou("best", "drop_case"),
            _dice("plurality", "one", fusion="vote"),
        ),
        notes="The draws of its sampler are one-hot, so their mean is a vote. A tie is background (the lowest id). With K > 2 "
        "classes empty in both maps are left out, and cases in which a pair has none left; eval_batch stops at K = 2, "
        "the functions do not. The best 4 of N are matched, which rises with N.",
    ),
    "phiseg": Preset(
        "PHiSeg, Baumgartner et al. 2019, arXiv 1906.04045",
        code="baumgach/PHiSeg-code@c43f3b3: utils.py, phiseg_test_quantitative.py, phiseg_test_predictions.py",
        draws=(50, 100),
        choices=(_ged("v", "one"), Choice("ncc", {}), _dice("single", "one", rater=0)),
        notes="GED and NCC of 50 draws, Dice of the mean of 100. Dice is against one rater: the first in the experiments with "
        "one annotator; one at random for each case in the others.",
    ),
    "ssn": Preset(
        "SSN, Monteiro et al. 2020, arXiv 2006.06015",
        code="MiguelMonteiro/PHiSeg-code@86436f8: utils.py, phiseg_full_evaluation.py",
        draws=(100,),
        choices=(
            _ged("v", "one"),
            _diversity("one"),
            Choice("ncc", {}),
            _dice("per_rater", "drop", pooled=True),
            _dice("per_rater", "drop", where="rater", pooled=True),
        ),
        notes="Dice is pooled over all case-rater pairs: those with a foreground in either map (dsc_mean), and those whose "
        "rater marked a lesion (dsc_where_lesion_mean). Its own model is fused by the mean of the logits, the others by "
        "the mean probability, as here. Its log-likelihood has the two channels of the raters' masks swapped, and is "
        "not taken over.",
    ),
    "kohl": Preset(
        "Probabilistic U-Net, Kohl et al. 2018, arXiv 1806.05034",
        code="SimonKohl/probabilistic_unet@7a2e79d: evaluation/eval_cityscapes.py, utils/training_utils.py",
        draws=(16,),
        choices=(_ged("v", "drop"),),
        notes="Classes empty in both maps are left out. Where no class is left for a pair with a draw, which Cityscapes does "
        "not have, the code gives NaN; here the pair is left out.",
    ),
    "nf_punet_excl": Preset(
        "NF-PUNet, Valiuddin et al. 2021, arXiv 2108.02155, empty pairs excluded",
        code="A-Vzer/punets-pytorch@f31cc68: utils.py (calc_confusion, calc_iou)",
        draws=(16,),
        choices=(_ged("v", "drop"), _hm_iou("duplicate", "drop"), Choice("average_iou", {"empty": "drop"})),
        notes="The public code has the IoU with a choice for two empty masks; the loops over pairs are the paper's words.",
    ),
    "nf_punet_incl": Preset(
        "NF-PUNet, Valiuddin et al. 2021, arXiv 2108.02155, empty pairs included",
        code="A-Vzer/punets-pytorch@f31cc68: utils.py (calc_confusion, calc_iou)",
        draws=(16,),
        choices=(_ged("v", "one"), _hm_iou("duplicate", "one"), Choice("average_iou", {"empty": "one"})),
        notes="As nf_punet_excl.",
    ),
    "cflow": Preset(
        "cFlow Net, Selvan et al. 2020, arXiv 2006.02683",
        code="raghavian/cFlow@79caf3c: utils/utils.py (ged), utils/tools.py (dice)",
        draws=(128,),
        choices=(_ged("v", "one"), _dice("single", "drop", rater=0), Choice("nll", {})),
        notes="Where R divides N, the code's draw-rater term compares each draw with one rater only; its expectation is that "
        "of all pairs, which are taken here. Dice of two empty masks is 0 / 0 there. NLL is the paper's, not in the "
        "code.",
    ),
    "dpersona": Preset(
        "D-Persona, Wu et al. 2024, CVPR; the code of the MMIS challenge",
        code="ycwu1997/D-Persona@abf1e50: D-Persona/code/lib/metrics_set.py, evaluate_dp.py",
        draws=(10,),
        choices=(
            _ged("v", "zero"),
            _dice("max", "one"),
            _dice("max_draw", "one"),
            _dice("match", "one"),
            Choice("thresholded", {"score": "dice", "levels": _PERSONA_LEVELS}),
        ),
        notes="Binary masks only. Two empty masks have IoU 0 in GED, though Dice 1. The code calls the best draw of each "
        "rater Dice_max_reverse and the best rater of each draw Dice_max. Dice_match needs as many draws as raters.",
    ),
    "cfm": Preset(
        "conditional flow matching, Nguyen et al. 2025, arXiv 2507.22418",
        code="huynhspm/Data-Uncertainty@e18e60a: eval_segmentation.py",
        draws=(15,),
        choices=(
            _ged("v", "one"),
            Choice("ncc", {"order": "swapped", "eps": 1e-6}),
            _dice("max", "one"),
            _dice("majority", "one"),
        ),
        notes="Its S_NCC has both cross-entropies the other way round. Dice is of the mean draw above 0.5 against the mean of "
        "the raters above 0.5.",
    ),
    "p2sam": Preset(
        "P2SAM, Huang et al. 2024, ACM MM, doi 10.1145/3664647.3680628",
        code="yu2hi13/P2SAM@cd51dee: utils.py, evaluate.py",
        draws=(16,),
        choices=(_ged("v", "one"), _hm_iou("best", "one"), _dice("max_pair", "one")),
        notes="HM-IoU is of the best 4 of 16 draws, D_max one maximum over all pairs. evaluate.py prints the IoU of the first "
        "pair as GED, because it unpacks the two results in the wrong order.",
    ),
    "ccdm": Preset(
        "CCDM, Zbinden et al. 2023, ICCV, arXiv 2303.08888",
        code="LarsDoorenbos/ccdm-stochastic-segmentation@ceb781d: evaluation/evaluate_lidc_uncertainty.py",
        draws=(16, 32, 50, 100),
        choices=(_ged("v", "one"), _diversity("one"), _hm_iou("duplicate", "one")),
        notes="It also logs Dice and IoU of the geometric mean of the draws, pooled over the pixels of all non-empty raters, "
        "which the paper does not print and which is not taken over.",
    ),
    "mose": Preset(
        "MoSE, Gao et al. 2023, ICLR, arXiv 2212.07328",
        code="gaozhitong/MoSE-AUSeg@8261e7d: utils/metrics.py, engine.py",
        draws=(16,),
        choices=(_ged("v", "one"), _hm_iou("duplicate", "one"), Choice("ece", {"num_bins": 10, "pooled": True})),
        multiclass=(_ged("v", "drop_case"), _hm_iou("duplicate", "drop_case")),
        notes="Draws carry the weights of their experts, which every mean over draws takes; HM-IoU is then optimal transport. "
        "ECE is one for all pixels of the set. With K > 2 classes empty in both maps are left out, and cases in which a "
        "pair has none left, though its HM-IoU counts these as 0; its ECE is then that of the most likely class, which "
        "is not taken over.",
    ),
}


def evaluate_preset(
    name: str,
    draws: Tensor,
    raters: Tensor,
    *,
    pred: Tensor | None = None,
    num_classes: int = 2,
    include_background: bool = False,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute the metrics of a published protocol per case; state N beside them.

    Args:
        name: a key of ``PRESETS``.
        draws: label maps (B, N, *S).
        raters: label maps (B, R, *S); -1 everywhere = missing.
        pred: soft draws (B, N, K, *S), which likelihood, calibration and NCC need.
        num_classes: K.
        include_background: count class 0 as well.
        weights: probabilities of the draws (B, N); None where they are equally likely.

    Returns:
        For each metric a tensor (B,), under a key that names the convention; (B, J + 1) for what is pooled over cases
        (:func:`~monai_flowssn.metrics.pool`).

    Example:
        >>> import torch
        >>> draws = raters = torch.tensor([[[1, 1, 0, 0], [0, 1, 0, 0]]])
        >>> evaluate_preset("p2sam", draws, raters)
        {'ged_v_one': tensor([0.]), 'hm_iou_best_one': tensor([1.]), 'dice_max_pair_one': tensor([1.])}
    """
    check_option("preset", name, list(PRESETS))
    comparison = Comparison(draws, raters, pred, num_classes, include_background, weights)
    return comparison.evaluate(PRESETS[name].choices_for(num_classes))
