"""What a configuration says of a run: its settings for MLflow, and what a model depends on."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_flowssn.data import write_manifest
from monai_flowssn.files import hold
from monai_flowssn.handlers import MLflowRunHandler
from monai_flowssn.handlers.mlflow_database import sqlite_uri
from monai_flowssn.handlers.run_facts import calling_config
from monai_flowssn.handlers.trained_options import check_trained_options
from monai_flowssn.options import unread_ids
from monai_flowssn.workflows.preprocessing import Data

__all__ = ["Run", "check_bundle_options", "model_options", "plain_settings"]

#: Arguments of segmenters that a trained model may be given anew: how it draws, and of how many draws its loss was.
DRAWING = ("steps", "solver", "grid_power", "guidance", "ancestral", "samples", "train_draws")
#: Where and how a workflow runs, not what it is.
UNTOLD = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "resume", "mlflow", "displayable_configs", "_meta_")


class Run(MLflowRunHandler):
    """A run of a workflow: what it is of, where its files lie, and the handler that logs it.

    Logged are its settings, data sets, metrics, table of cases, panels and weights.

    Args:
        bundle_root: folder of the bundle.
        output_dir: where the manifest, the table and the panels lie.
        checkpoint: ``model.pt``, which a training writes and the others use.
        method: for tags and name.
        data: what it is of.
        workflow: name of the workflow.
        experiment_name: of MLflow.
        tracking_uri: of MLflow's server or file; by default the environment's MLFLOW_TRACKING_URI, else ``runs/mlflow.db`` of the
            bundle. Without either, an inference is logged only where that file exists, because its training made it.
        study: name of the run under which this one stands; by default the folds of a cross-validation have one.
        options: others of :class:`~monai_flowssn.handlers.MLflowRunHandler`.
    """

    def __init__(
        self,
        *,
        bundle_root: str,
        output_dir: str,
        checkpoint: str,
        method: str,
        data: Data,
        workflow: str,
        experiment_name: str = "monai_flowssn",
        tracking_uri: str | None = None,
        study: str | None = None,
        **options: Any,
    ) -> None:
        config, database = calling_config() or {}, Path(bundle_root, "runs", "mlflow.db")
        params = plain_settings(config)
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None and (workflow != "inference" or database.is_file()):
            uri = sqlite_uri(database)
        short = data.name.partition(" ")[0]
        fold, seed = data.folds and f"f{data.fold}", f"s{params.get('seed', 0)}"
        parts = [method, short, seed, fold, workflow != "train" and workflow]
        super().__init__(
            experiment_name,
            uri,
            name="-".join(str(part) for part in parts if part),
            study=study or (f"{method}-{short}-{data.folds}-folds" if data.folds else None),
            tags={"method": method, "data": data.name, "run": workflow},
            params=params,
            manifest=None if workflow == "inference" else Path(output_dir, "manifest.json"),
            checkpoint=checkpoint,
            images=output_dir,
            artifacts={"per_case": f"{glob.escape(output_dir)}/*.csv"},
            **options,
        )
        self.data, self.workflow, self.ckpt_dir = data, workflow, str(Path(checkpoint).parent)
        #: What the model depends on, by id.
        self.model_options = model_options(data, config)

    def write_manifest(self, **groups: Sequence[Mapping[str, Any]]) -> None:
        """Write which cases it is of, by split, into ``output_dir``; it is made.

        The folders are this process's until it ends (:func:`~monai_flowssn.files.hold`).

        Raises:
            ValueError: if another process writes into one of them.
        """
        path = Path(str(self.manifest))
        if os.environ.get("RANK", "0") == "0":  # of torchrun; the processes have not met yet
            for folder in [Path(self.ckpt_dir)] * (self.workflow == "train") + [path.parent]:
                hold(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(path, about=self.data.name, **groups)


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


def check_bundle_options(config: Mapping[str, Any], weights: str | Path) -> None:
    """Refuse a bundle that contradicts the options its model was trained with, unless its ``force_options`` is true.

    Args:
        config: of the bundle, not parsed.
        weights: file of the model.

    Raises:
        ValueError: names those that differ.
    """
    if not config.get("force_options"):
        data = ConfigParser(deepcopy(dict(config))).get_parsed_content("data")
        check_trained_options(weights, model_options(data, config))


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
