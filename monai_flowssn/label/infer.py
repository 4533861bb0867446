"""A bundle's answers, with the geometry of their image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.transform.writer import Writer
from monailabel.utils.others.generic import device_list, device_map, name_to_device, remove_file

from monai_flowssn.label.requests import check_option, check_request, clicked
from monai_flowssn.transforms import LocatePointd
from monai_flowssn.workflows import check_bundle_options, on_device, precision

MAX_VOXELS = 2**31  # draws times voxels: 16 draws of 512x512x500, one byte each


def device_of(request: Mapping[str, Any]) -> str:
    """Return the device that a request names, or the first one.

    Raises:
        ValueError: if there is no such device here.
    """
    named = request.get("device")
    check_option("device", named, [None, "cpu", "cuda", *device_list(), *device_map().values()])
    return name_to_device(named)


class DrawInferTask(BundleInferTask):
    """MONAI Label's inference of a bundle; files of 2-D images keep their geometry, and draws are numbered segments.

    Args:
        path: of the bundle.
        conf: MONAI Label's ``--conf`` settings; ``max_voxels`` bounds the draws of a request times the voxels of its image.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        super().__init__(path, conf)
        self.conf = conf
        self.max_voxels = int(float(conf.get("max_voxels", MAX_VOXELS)))
        self.on_device: dict[str, DrawInferTask] = {}

    def __call__(self, request: dict[str, Any], callbacks: dict[Any, Any] | None = None) -> tuple[Any, Any]:
        """Return the answer to a request of plain values."""
        check_request(request, self.displayable_configs, self.models())
        # `label` would be read as the masks of raters, from wherever it says
        plain = {name: value for name, value in request.items() if name != "label"}
        task = self.on(device_of(request))
        return super(DrawInferTask, task).__call__(plain, callbacks)

    def on(self, device: str) -> DrawInferTask:
        """Return this model for one device: a request writes its options into the config, and two devices draw at once."""
        if device not in self.on_device:
            self.on_device[device] = DrawInferTask(self.bundle_path, self.conf) if self.on_device else self
        return self.on_device[device]

    def warm(self, device: str) -> None:
        """Load the model, draw of an image of its training's size, and write: the first answer is then as fast as others."""
        channels, size = map(self.bundle_config.get_parsed_content, ("data::channels", "spatial_size"))
        data = {**self.config(), "image": torch.zeros(channels, *size), "device": device, "image_path": "none.nii.gz"}
        task = self.on(device)
        task.pre_transforms(data)  # gives the options to the config
        task.run_inferer(data, device=device)
        path, _ = task.writer({**data, task.output_label_key: MetaTensor(torch.zeros(*size, dtype=torch.uint8))})
        remove_file(path)

    def pre_transforms(self, data: dict[str, Any] | None = None) -> Any:
        """Return the bundle's, and give a model that takes a point the one that the client clicked: ``foreground``, [[x, y, z]].

        Raises:
            ValueError: if this model takes none, or the client clicked several.
        """
        transforms = super().pre_transforms(data)
        if data is not None and (point := clicked(data)) is not None:
            if not any(isinstance(each, LocatePointd) for each in transforms):
                raise ValueError("this model draws from the image alone; send no foreground or background points.")
            data["point"] = point
        return transforms

    def _get_network(self, device: Any, data: dict[str, Any] | None) -> Any:
        check_bundle_options(self.bundle_config.get(), Path(self.bundle_path, "models", "model.pt"))
        # as in the bundle's own workflows: MONAI Label builds `network_def`, which `network` puts into the fast layout
        return on_device(super()._get_network(device, data), device)

    def run_inferer(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cuda") -> Any:
        """Draw in the precision that the bundle's own inference has on that device."""
        size = data["image"].shape[1:]
        drawn = data["draws"] * math.prod(size)
        if drawn > self.max_voxels:
            raise ValueError(
                f"{data['draws']} draws of {'x'.join(map(str, size))} are {drawn:.3g} voxels, and {self.max_voxels:.3g} are the "
                f"limit; ask for at most {self.max_voxels // math.prod(size)} draws."
            )
        cuda = precision(device, self.bundle_config.get("evaluator::amp"))
        with torch.autocast("cuda", enabled=cuda["amp"], **cuda["amp_kwargs"]):
            return super().run_inferer(data, convert_to_batch, device)

    def models(self) -> list[str]:
        """Return the names of the models, those that trainings have left since the server was started too."""
        names = [path.name for path in Path(self.bundle_path, "models").glob("*.pt")]
        return sorted(names, key=lambda name: (len(name), name))

    def info(self) -> dict[str, Any]:
        """Return what clients show, and what the network sees of an image."""
        self._config["model_filename"] = self.models()
        return {**super().info(), "sees": self.bundle_config.get_parsed_content("data").seen}

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, Any]:
        """Return the file of the answer and its JSON part."""
        pred = data[self.output_label_key]
        draws = data.get("result_extension") == ".seg.nrrd"
        flat = data["image"].ndim == 3
        if flat and (draws or str(data.get("image_path", "")).endswith((".nii", ".nii.gz"))):
            data[self.output_label_key] = pred[..., None]  # the stock writer has no geometry for two axes
        data["labels"] = [f"draw {i + 1}" for i in range(len(pred))] if draws else self.labels
        return Writer(label=self.output_label_key, json=self.output_json_key)(data)
