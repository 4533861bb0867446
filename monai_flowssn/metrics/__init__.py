"""Metrics of sets of draws against sets of raters; pairwise IoU is the single primitive."""

from monai_flowssn.metrics.bootstrap import Interval, bootstrap_interval, paired_difference
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
from monai_flowssn.metrics.dice import compute_dice
from monai_flowssn.metrics.ged import compute_diversity, compute_ged, diversity_from_iou, ged_from_iou
from monai_flowssn.metrics.iou import IoUTable, iou_table, pairwise_iou
from monai_flowssn.metrics.matching import average_iou_from_iou, compute_average_iou, compute_hm_iou, hm_iou_from_iou
from monai_flowssn.metrics.presets import PRESETS, Choice, Comparison, Preset, evaluate_preset
from monai_flowssn.metrics.rank import effective_rank, rank_from_spectrum
from monai_flowssn.metrics.soft import compute_ece, compute_ncc, compute_nll

__all__ = [
    "PRESETS",
    "AverageIoUMetric",
    "CalibrationMetric",
    "CaseMetric",
    "Choice",
    "Comparison",
    "DiversityMetric",
    "GEDMetric",
    "HMIoUMetric",
    "Interval",
    "IoUTable",
    "NCCMetric",
    "NLLMetric",
    "Preset",
    "RaterDiceMetric",
    "average_iou_from_iou",
    "bootstrap_interval",
    "compute_average_iou",
    "compute_dice",
    "compute_diversity",
    "compute_ece",
    "compute_ged",
    "compute_hm_iou",
    "compute_ncc",
    "compute_nll",
    "diversity_from_iou",
    "effective_rank",
    "evaluate_preset",
    "ged_from_iou",
    "hm_iou_from_iou",
    "iou_table",
    "paired_difference",
    "pairwise_iou",
    "rank_from_spectrum",
]
