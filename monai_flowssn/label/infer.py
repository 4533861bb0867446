"""A bundle's answers, with the geometry of their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.transform.writer import Writer

from monai_flowssn.label.requests import refuse_config, refuse_path
from monai_flowssn.workflows import on_device, precision


class DrawInferTask(BundleInferTask):
    """MONAI Label's inference of a bundle; files of 2-D images keep their geometry, and draws are numbered segments."""

    def __call__(self, request: dict[str, Any], callbacks: dict[Any, Any] | None = None) -> tuple[Any, Any]:
        """Return the answer to a request of plain values."""
        refuse_config(request)
        refuse_path(request.get("model_filename"))
        refuse_path((request.get("result_extension") or "").removeprefix("."))
        # `label` would be read as the masks of raters, from wherever it says
        return super().__call__({name: value for name, value in request.items() if name != "label"}, callbacks)

    def _get_network(self, device: Any, data: dict[str, Any] | None) -> Any:
        # as in the bundle's own workflows: MONAI Label builds `network_def`, which `network` puts into the fast layout
        return on_device(super()._get_network(device, data), device)

    def run_inferer(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cuda") -> Any:
        """Draw in the precision that the bundle's own inference has on that device."""
        cuda = precision(device, self.bundle_config.get("evaluator::amp"))
        with torch.autocast("cuda", enabled=cuda["amp"], **cuda["amp_kwargs"]):
            return super().run_inferer(data, convert_to_batch, device)

    def info(self) -> dict[str, Any]:
        """Return what clients show; with the models that trainings have left since the server was started."""
        models = Path(self.bundle_path, "models").glob("*.pt")
        self._config["model_filename"] = sorted((path.name for path in models), key=lambda name: (len(name), name))
        return super().info()

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, Any]:
        """Return the file of the answer and its JSON part."""
        pred = data[self.output_label_key]
        draws = data.get("result_extension") == ".seg.nrrd"
        flat = data["image"].ndim == 3
        if flat and (draws or str(data.get("image_path", "")).endswith((".nii", ".nii.gz"))):
            data[self.output_label_key] = pred[..., None]  # the stock writer has no geometry for two axes
        data["labels"] = [f"draw {i + 1}" for i in range(len(pred))] if draws else self.labels
        return Writer(label=self.output_label_key, json=self.output_json_key)(data)
