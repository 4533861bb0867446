"""Ignite handlers: what training and evaluation need beside MONAI's own."""

from monai_flowssn.handlers.clip_gradient import ClipGradient
from monai_flowssn.handlers.ema import WarmUpEMAHandler
from monai_flowssn.handlers.last_checkpoint import LastCheckpoint
from monai_flowssn.handlers.metrics import (
    AverageIoUHandler,
    CalibrationHandler,
    DiversityHandler,
    GEDHandler,
    HMIoUHandler,
    NCCHandler,
    NLLHandler,
    RaterDiceHandler,
)
from monai_flowssn.handlers.mlflow_run import MLflowRunHandler
from monai_flowssn.handlers.non_finite import StopOnNonFinite

__all__ = [
    "AverageIoUHandler",
    "CalibrationHandler",
    "ClipGradient",
    "DiversityHandler",
    "GEDHandler",
    "HMIoUHandler",
    "LastCheckpoint",
    "MLflowRunHandler",
    "NCCHandler",
    "NLLHandler",
    "RaterDiceHandler",
    "StopOnNonFinite",
    "WarmUpEMAHandler",
]
