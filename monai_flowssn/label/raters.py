"""Training on all annotations of a study: its label tags are its raters."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.tasks.train.bundle import BundleTrainTask

from monai_flowssn.label.requests import refuse_config, refuse_path
from monai_flowssn.workflows import Data

logger = logging.getLogger(__name__)


class RaterTrainTask(BundleTrainTask):
    """MONAI Label's training of a bundle, with every label of a study as the mask of one rater.

    Tags are raters: ``final``, and any other that annotators save under, such as their names. ``original`` is left out, because
    the model's own answers are saved there. The model before a training is kept as ``model_<time>.pt``.
    """

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train as a request of plain values says."""
        refuse_config(request)
        refuse_path(request.get("model_filename"))
        if self.bundle_config.get("data::crops", Data.crops) == "centre":
            raise ValueError(
                "this model looks at the centre of an image, and would not see what is annotated elsewhere; make its bundle with "
                "monai-flowssn package ... --set data::crops=anywhere."
            )
        # MONAI takes other values of `tracking` for a config file to load; the bundle keeps track of its trainings itself
        plain = {name: value for name, value in request.items() if name not in ("tracking", "run_id")}
        return super().__call__(plain, datastore)

    def _fetch_datalist(self, request: dict[str, Any], datastore: Datastore) -> list[dict[str, Any]]:
        items = []
        for image in sorted(datastore.list_images()):
            tags = sorted(set(datastore.get_labels_by_image_id(image)) - {DefaultLabelTag.ORIGINAL.value})
            if tags:
                label = [datastore.get_label_uri(image, tag) for tag in tags]
                items.append({"image": datastore.get_image_uri(image), "label": label, "case": image, "patient": image})
        if not items:
            raise ValueError("no image has a label; save one under the tag final, or under one tag per annotator.")
        refuse_config(items)
        return items

    def _partition_datalist(
        self, datalist: list[Any], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[Any, Any]:
        train, val = super()._partition_datalist(datalist, request, shuffle)
        if not train or not val:
            logger.warning(
                "%d labelled images are too few to set some apart: validation is on those of training", len(datalist)
            )
            return datalist, datalist
        return train, val

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        current = Path(self.bundle_path, "models", "model.pt")  # what training overwrites, whatever it starts from
        if current.exists():
            shutil.copyfile(current, current.with_name(f"model_{time.strftime('%Y%m%d-%H%M%S')}.pt"))
        if pretrained:
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)
            for handler in train_handlers:
                if handler.get("_target_") == "CheckpointLoader":
                    handler["map_location"] = "cpu"  # weights from a GPU, on a server without

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        lists = [
            overrides[key] for key in (self.const.key_train_dataset_data(), self.const.key_validate_dataset_data())
        ]
        overrides["data::raters"] = max(len(item["label"]) for items in lists for item in items)
        overrides["data::name"] = "monai_label"
        return overrides
