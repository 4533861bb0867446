"""What a configuration says of a run: its settings for MLflow, and what a model depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_flowssn.data import write_manifest
from monai_flowssn.handlers import MLflowRunHandler
from monai_flowssn.handlers.run_facts import calling_config
from monai_flowssn.workflows.preprocessing import Data

__all__ = ["Run", "model_options", "plain_settings"]

#: Arguments of segmenters that a trained model may be given anew: how it draws, and of how many draws its loss was.
DRAWING = ("steps", "solver", "grid_power", "guidance", "ancestral", "samples", "train_draws")
PLACES = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "resume")  # where and how it runs, not what it is


class Run(MLflowRunHandler):
    """A run of a workflow: what it is of, where its files lie, and the handler that logs it.

    Logged are its settings, manifest, metrics, table of cases and weights.

    Args:
        bundle_root: folder of the bundle.
        output_dir: where the manifest and the table lie.
        ckpt_dir: where ``model.pt`` lies.
        method: for the tags.
        data: what it is of.
        workflow: name of the workflow.
        experiment_name: of MLflow.
        tracking_uri: of MLflow's server or file; by default the environment's MLFLOW_TRACKING_URI, else ``runs/mlflow.db`` of the
            bundle.
        options: others of :class:`~monai_flowssn.handlers.MLflowRunHandler`.
    """

    def __init__(
        self,
        *,
        bundle_root: str,
        output_dir: str,
        ckpt_dir: str,
        method: str,
        data: Data,
        workflow: str,
        experiment_name: str = "monai_flowssn",
        tracking_uri: str | None = None,
        **options: Any,
    ) -> None:
        config = calling_config() or {}
        super().__init__(
            experiment_name,
            tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{bundle_root}/runs/mlflow.db",
            tags={"method": method, "data": data.name, "run": workflow},
            params=plain_settings(config),
            manifest=Path(output_dir, "manifest.json"),
            artifacts={"per_case": f"{output_dir}/*.csv", "checkpoint": f"{ckpt_dir}/model.pt"},
            **options,
        )
        self.data, self.ckpt_dir = data, ckpt_dir
        #: What the model depends on, by id.
        self.model_options = model_options(data, config)

    def write_manifest(self, **groups: Sequence[Mapping[str, Any]]) -> None:
        """Write which cases it is of, by split, into ``output_dir``; it is made."""
        path = Path(str(self.manifest))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(path, about=self.data.name, **groups)


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
