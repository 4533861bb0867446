"""Score studies by how much a model's draws disagree, and take the one with the most first."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.infer.basic_infer import BasicInferTask

logger = logging.getLogger(__name__)

KEY = "sample_uncertainty"  # of an image's info in the data store


def _score_of(datastore: Datastore, image: str) -> Mapping[str, Any]:
    """Return what scoring noted about an image; clients can note there what they like."""
    score = datastore.get_image_info(image).get(KEY)
    return score if isinstance(score, Mapping) else {}


class SampleUncertainty(ScoringMethod):
    """Mean mutual information of class and draw (nats) over the region where at least one draw is foreground.

    0 where all draws agree or are empty. Images whose score is of the same model file are not scored again, and an image that
    fails keeps the others from nothing.

    Args:
        models: the models by name.
    """

    def __init__(self, models: Mapping[str, BasicInferTask]) -> None:
        super().__init__("Disagreement between the draws of a model, for the strategy most_uncertain")
        self.models = models

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score every unlabelled image; ``request`` may name the ``model`` and the number of ``draws``."""
        model = request.get("model") or next(iter(self.models))
        if model not in self.models:
            raise ValueError(f"there is no model {model!r}; choose one of {', '.join(self.models)}.")
        task = self.models[model]
        source = {"model": model, "of": int(os.stat(task.get_path()).st_mtime)}
        done: dict[str, Any] = {"scored": 0, "skipped": 0, "failed": {}}
        for image in datastore.get_unlabeled_images():
            known = _score_of(datastore, image)
            if {key: known.get(key) for key in source} == source:
                done["skipped"] += 1
                continue
            try:
                value = self._score(task, datastore.get_image_uri(image), request)
            except Exception as error:  # of any reader or network: the next image may do
                logger.exception("no score for %s", image)
                done["failed"][image] = str(error)
                continue
            datastore.update_image_info(image, {KEY: {**source, "mutual_information": value}})
            done["scored"] += 1
        return done

    def _score(self, task: BasicInferTask, path: str, request: Mapping[str, Any]) -> float:
        options = {name: request[name] for name in ("device", "draws") if name in request}
        _, data = task({"image": path, "skip_writer": True, "output": "segmentation", "logging": "ERROR", **options})
        return data["result"]["uncertainty"]["mutual_information"] or 0.0


class MostUncertain(Strategy):
    """Choose the unlabelled image with the highest score; images without a score come last."""

    def __init__(self) -> None:
        super().__init__("The study whose draws differ most (run the scoring sample_uncertainty first)")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the id of the image, or None when all are labelled."""
        images = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        notes = {image: _score_of(datastore, image).get("mutual_information") for image in images}
        scores = {image: note if isinstance(note, float) else -1.0 for image, note in notes.items()}
        if not scores:
            return None
        image = max(scores, key=scores.__getitem__)
        return {"id": image}
