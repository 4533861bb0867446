"""Metrics of sets of draws against sets of raters; pairwise IoU is the single primitive."""

from monai_flowssn.metrics.bootstrap import Interval, bootstrap_interval, interval_over_seeds, paired_difference
from monai_flowssn.metrics.collective import compute_collective_insight
from monai_flowssn.metrics.comparison import METRICS, Choice, Comparison
from monai_flowssn.metrics.cumulative import CaseMetric, compare
from monai_flowssn.metrics.dice import compute_dice
from monai_flowssn.metrics.existence import compute_existence, existence_curve
from monai_flowssn.metrics.ged import compute_diversity, compute_ged, diversity_from_iou, ged_from_iou
from monai_flowssn.metrics.iou import IoUTable, iou_table, pairwise_iou
from monai_flowssn.metrics.matching import average_iou_from_iou, compute_average_iou, compute_hm_iou, hm_iou_from_iou
from monai_flowssn.metrics.pooling import pool
from monai_flowssn.metrics.presets import PRESETS, Preset, evaluate_preset
from monai_flowssn.metrics.rank import effective_rank, rank_from_spectrum
from monai_flowssn.metrics.soft import compute_ece, compute_ncc, compute_nll
from monai_flowssn.metrics.surface import compute_surface
from monai_flowssn.metrics.thresholded import compute_thresholded
from monai_flowssn.metrics.volume import compute_crps

__all__ = [
    "METRICS",
    "PRESETS",
    "CaseMetric",
    "Choice",
    "Comparison",
    "Interval",
    "IoUTable",
    "Preset",
    "average_iou_from_iou",
    "bootstrap_interval",
    "compare",
    "compute_average_iou",
    "compute_collective_insight",
    "compute_crps",
    "compute_dice",
    "compute_diversity",
    "compute_ece",
    "compute_existence",
    "compute_ged",
    "compute_hm_iou",
    "compute_ncc",
    "compute_nll",
    "compute_surface",
    "compute_thresholded",
    "diversity_from_iou",
    "effective_rank",
    "evaluate_preset",
    "existence_curve",
    "ged_from_iou",
    "hm_iou_from_iou",
    "interval_over_seeds",
    "iou_table",
    "paired_difference",
    "pairwise_iou",
    "pool",
    "rank_from_spectrum",
]
