"""The MLflow run of a training or an evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_flowssn.handlers import MLflowRunHandler
from monai_flowssn.handlers.run_facts import calling_config

__all__ = ["mlflow_run", "plain_settings"]

PLACES = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "resume")  # where and how it runs, not what it is


def mlflow_run(
    *,
    bundle_root: str,
    output_dir: str,
    ckpt_dir: str,
    method: str,
    data: str,
    run: str,
    experiment_name: str = "monai_flowssn",
    tracking_uri: str | None = None,
    **options: Any,
) -> MLflowRunHandler:
    """Return the handler that logs a workflow: its settings, manifest, metrics, table of cases and weights.

    Args:
        bundle_root: folder of the bundle.
        output_dir: where the manifest and the table lie.
        ckpt_dir: where ``model.pt`` lies.
        method: for the tags, as the next two.
        data: name of the data set.
        run: name of the workflow.
        experiment_name: of MLflow.
        tracking_uri: of MLflow's server or file; by default the environment's MLFLOW_TRACKING_URI, else ``runs/mlflow.db`` of the
            bundle.
        options: others of :class:`~monai_flowssn.handlers.MLflowRunHandler`.
    """
    return MLflowRunHandler(
        experiment_name,
        tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{bundle_root}/runs/mlflow.db",
        tags={"method": method, "data": data, "run": run},
        params=plain_settings(calling_config() or {}),
        manifest=Path(output_dir, "manifest.json"),
        artifacts={"per_case": f"{output_dir}/*.csv", "checkpoint": f"{ckpt_dir}/model.pt"},
        **options,
    )


def plain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values that a configuration sets, those of the data set and the network by their ids.

    Args:
        config: the configuration, not parsed.

    Example:
        >>> plain_settings({"lr": 0.1, "device": "$torch.device('cpu')", "data": {"_target_": "Data", "crops": "whole"}})
        {'lr': 0.1, 'data.crops': 'whole'}
    """
    settings = {}
    for name, value in config.items():
        if name in ("data", "network_def"):
            settings.update({f"{name}.{key}": each for key, each in _leaves(value)})
        elif _is_plain(value) and name not in PLACES:
            settings[name] = value
    return settings


def _leaves(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = []
    for name, each in value.items():
        if isinstance(each, Mapping):
            found += [(f"{name}.{key}", leaf) for key, leaf in _leaves(each)]
        elif _is_plain(each) and not name.startswith("_"):
            found.append((name, each))
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return not isinstance(value, Mapping) and not str(value).startswith(("$", "@", "%"))
