"""Ignite handlers: what training and evaluation need beside MONAI's own."""

from monai_flowssn.handlers.best_checkpoint import BestCheckpoint
from monai_flowssn.handlers.bfloat16 import UnscaledBFloat16
from monai_flowssn.handlers.budget import Budget
from monai_flowssn.handlers.case_table import CaseTable
from monai_flowssn.handlers.clip_gradient import ClipGradient
from monai_flowssn.handlers.early_stop import EarlyStop
from monai_flowssn.handlers.ema import WarmUpEMAHandler
from monai_flowssn.handlers.epoch_seed import EpochSeed
from monai_flowssn.handlers.finishing import Finishing, stage_schedule
from monai_flowssn.handlers.last_checkpoint import LastCheckpoint
from monai_flowssn.handlers.last_validation import LastValidation
from monai_flowssn.handlers.metrics import CaseMetricHandler, CompareOnce
from monai_flowssn.handlers.mlflow_run import MLflowRunHandler
from monai_flowssn.handlers.non_finite import StopOnNonFinite
from monai_flowssn.handlers.sampling_time import SamplingTime
from monai_flowssn.handlers.standard_metrics import standard_metrics
from monai_flowssn.handlers.trained_options import KeptOptions
from monai_flowssn.handlers.weights_loader import WeightsLoader

__all__ = [
    "BestCheckpoint",
    "Budget",
    "CaseMetricHandler",
    "CaseTable",
    "ClipGradient",
    "CompareOnce",
    "EarlyStop",
    "EpochSeed",
    "Finishing",
    "KeptOptions",
    "LastCheckpoint",
    "LastValidation",
    "MLflowRunHandler",
    "SamplingTime",
    "StopOnNonFinite",
    "UnscaledBFloat16",
    "WarmUpEMAHandler",
    "WeightsLoader",
    "stage_schedule",
    "standard_metrics",
]
