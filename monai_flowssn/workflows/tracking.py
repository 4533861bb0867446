"""What a configuration says of a run: its settings for MLflow, and what a model depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_flowssn.handlers import MLflowRunHandler
from monai_flowssn.handlers.run_facts import calling_config
from monai_flowssn.options import unread_ids
from monai_flowssn.workflows.preprocessing import Data

__all__ = ["mlflow_run", "model_options", "plain_settings"]

#: Arguments of segmenters that a trained model may be given anew: how it draws, and of how many draws its loss was.
DRAWING = ("steps", "solver", "grid_power", "guidance", "ancestral", "samples", "train_draws")
#: Where and how a workflow runs, not what it is.
UNTOLD = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "resume", "mlflow", "displayable_configs", "_meta_")


def mlflow_run(
    *,
    bundle_root: str,
    output_dir: str,
    checkpoint: str,
    method: str,
    data: str,
    run: str,
    experiment_name: str = "monai_flowssn",
    tracking_uri: str | None = None,
    study: str | None = None,
    **options: Any,
) -> MLflowRunHandler:
    """Return the handler that logs a workflow: its settings, data sets, metrics, table of cases, panels and weights.

    Args:
        bundle_root: folder of the bundle.
        output_dir: where the manifest, the table and the panels lie.
        checkpoint: ``model.pt``, which a training writes and the others use.
        method: for tags and name, as the next two.
        data: name of the data set.
        run: name of the workflow.
        experiment_name: of MLflow.
        tracking_uri: of MLflow's server or file; by default the environment's MLFLOW_TRACKING_URI, else ``runs/mlflow.db`` of the
            bundle. Without either, an inference is logged only where that file exists, because its training made it.
        study: name of the run under which this one stands; by default the folds of a cross-validation have one.
        options: others of :class:`~monai_flowssn.handlers.MLflowRunHandler`.
    """
    params, manifest = plain_settings(calling_config() or {}), Path(output_dir, "manifest.json")
    database = Path(bundle_root, "runs", "mlflow.db")
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None and (run != "inference" or database.is_file()):
        uri = f"sqlite:///{bundle_root}/runs/mlflow.db"
    folds, short = params.get("data.folds"), data.partition(" ")[0]
    parts = [
        method,
        short,
        f"s{params.get('seed', 0)}",
        folds and f"f{params.get('data.fold', 0)}",
        run != "train" and run,
    ]
    return MLflowRunHandler(
        experiment_name,
        uri,
        name="-".join(str(part) for part in parts if part),
        study=study or (f"{method}-{short}-{folds}-folds" if folds else None),
        tags={"method": method, "data": data, "run": run},
        params=params,
        manifest=None if run == "inference" else manifest,
        checkpoint=checkpoint,
        images=output_dir,
        artifacts={"per_case": f"{output_dir}/*.csv"},
        **options,
    )


def plain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values that a configuration sets and its workflow reads, by their ids with points.

    Args:
        config: the configuration, not parsed.

    Example:
        >>> network = {"_target_": "Net", "width": 8}
        >>> plain_settings({"run": ["$@network_def(@lr)"], "network_def": network, "lr": 0.1, "old": 3})
        {'network_def.width': 8, 'lr': 0.1}
    """
    unread = tuple(f"{name}::" for name in unread_ids(config))
    told = {name: value for name, value in config.items() if name not in UNTOLD}
    return {name: value for name, value in _leaves(told) if not f"{name.replace('.', '::')}::".startswith(unread)}


def model_options(data: Data, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return by their ids the options that a model depends on: what its images are, and its network.

    Not what decides how it draws, which may change, nor what follows from others.

    Args:
        data: what it is trained or used on.
        config: the configuration, not parsed; by default the one that is being parsed.
    """
    config = calling_config() or {} if config is None else config
    named = {name: config[name] for name in ("method_name", "spatial_size") if _is_plain(config.get(name, "$"))}
    described, network = config.get("data"), config.get("network_def", {})
    if isinstance(described, Mapping):
        named["data::geometry"] = described.get("geometry", [])
    if "_target_" in network:
        named["network_def::_target_"] = network["_target_"]
    numbers = {name: value for name, value in _leaves(network) if name not in DRAWING}
    return {**named, **data.seen, **{f"network_def::{name.replace('.', '::')}": each for name, each in numbers.items()}}


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
