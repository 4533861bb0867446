"""What the bundles' YAML calls: the program of a workflow as functions, whose arguments are the choices that YAML makes."""

from monai_flowssn.workflows.devices import on_device, own_device, precision, start_process
from monai_flowssn.workflows.evaluation import case_loader, evaluation_metrics, evaluator, validation_metrics
from monai_flowssn.workflows.preprocessing import Data
from monai_flowssn.workflows.tracking import Run, model_options, plain_settings
from monai_flowssn.workflows.training import Optimisation, trainer, training_loader

__all__ = [
    "Data",
    "Optimisation",
    "Run",
    "case_loader",
    "evaluation_metrics",
    "evaluator",
    "model_options",
    "on_device",
    "own_device",
    "plain_settings",
    "precision",
    "start_process",
    "trainer",
    "training_loader",
    "validation_metrics",
]
