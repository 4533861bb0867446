"""A trained model as MLflow keeps it: ``mlflow.pyfunc.load_model(uri).predict(images, params={"draws": 16})``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser

from monai_flowssn.handlers.run_facts import to_yaml
from monai_flowssn.inferers import MapInferer
from monai_flowssn.options import unread_ids
from monai_flowssn.transforms import DrawsToMapsd

__all__ = ["DrawingModel", "save_model"]

MAPS = ("mean", "draws", "entropy", "mutual_information")
READ = ("imports", "network_def", "data", "spatial_size")  # of a training's config, what its model is made of
REQUIRED = ("monai_flowssn", "monai", "torch")


class DrawingModel:
    """Answers with the maps of :class:`~monai_flowssn.transforms.DrawsToMapsd`; intensities are scaled as in training.

    Args:
        config: of the training, not parsed.
        weights: its ``model.pt``.
    """

    def __init__(self, config: Mapping[str, Any], weights: str | Path) -> None:
        parser = ConfigParser(dict(config))
        network, data = (parser.get_parsed_content(name) for name in ("network_def", "data"))
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.network, self.data, self.spatial_size = network.eval(), data, parser.get_parsed_content("spatial_size")

    @torch.no_grad()
    def predict(self, model_input: np.ndarray, params: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Return ``mean`` (B, K - 1, *S), ``draws`` (B, N, *S) uint8, ``entropy`` and ``mutual_information`` (B, 1, *S) in nats.

        Args:
            model_input: images (B, C, *S) with the intensities of their files. A model of whole windows takes them in the size
                of its training, one that was trained anywhere takes any, window by window.
            params: ``draws``, number of draws N; ``seed``.
        """
        asked = {"draws": 16, "seed": 0, **(params or {})}
        dims = len(self.spatial_size)
        window = self.spatial_size if self.data.crops == "anywhere" else None
        inferer = MapInferer(int(asked["draws"]), spatial_dims=dims, seed=int(asked["seed"]), window=window)
        scale, to_maps, found = self.data.scaling(dims), DrawsToMapsd(), []
        for image in torch.as_tensor(np.asarray(model_input, dtype=np.float32)):
            scaled = scale({"image": image})["image"]
            collected = {name: values[0] for name, values in inferer(scaled[None], self.network).items()}
            found.append(to_maps({"image": scaled, "pred": collected}))
        return {name: np.stack([maps[name].numpy() for maps in found]) for name in MAPS}


def save_model(folder: Path, config: Mapping[str, Any], weights: str | Path) -> None:
    """Write a folder that ``mlflow.pyfunc.load_model`` reads. It holds a config and tensors, and no pickled code.

    Args:
        folder: a new one.
        config: of the training, not parsed.
        weights: its ``model.pt``.
    """
    import mlflow.pyfunc  # slow to import
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    unread = unread_ids(config, READ)
    read = {name: value for name, value in config.items() if name not in unread}
    parser = ConfigParser(deepcopy(read))
    data, size = parser.get_parsed_content("data"), parser.get_parsed_content("spatial_size")
    any_size = (-1,) * len(size)
    parts = folder.with_name("parts")
    parts.mkdir()
    (parts / "config.yaml").write_text(to_yaml(read) or "", encoding="utf-8")
    shutil.copy(weights, parts / "model.pt")
    channels = {"mean": data.num_classes - 1, "draws": -1}
    kinds = {name: np.dtype("uint8" if name == "draws" else "float32") for name in MAPS}
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, data.channels, *any_size))]),
        Schema([TensorSpec(kinds[name], (-1, channels.get(name, 1), *any_size), name) for name in MAPS]),
        ParamSchema([ParamSpec("draws", DataType.integer, 16), ParamSpec("seed", DataType.integer, 0)]),
    )
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=__name__,
        data_path=str(parts),
        signature=signature,
        input_example=np.zeros((1, data.channels, *size), np.float32),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIRED],
    )


def _load_pyfunc(path: str) -> DrawingModel:
    """What MLflow calls with the folder of ``config.yaml`` and ``model.pt``."""
    config = yaml.safe_load(Path(path, "config.yaml").read_text(encoding="utf-8"))
    return DrawingModel(config, Path(path, "model.pt"))
