"""The checkpoint with the best key metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from ignite.handlers import DiskSaver
from torch import nn

from monai_flowssn.files import written_whole
from monai_flowssn.handlers.run_facts import to_yaml
from monai_flowssn.handlers.trained_options import OPTIONS_FILE


class BestCheckpoint:
    """Write ``model.pt``, whole or not at all, whenever the key metric of an evaluator is lower than ever before.

    Unlike MONAI's ``CheckpointSaver`` the old file stays until the new one is complete, and a resumed training knows what was
    best before: save this handler in the checkpoint that a training continues from.

    Args:
        save_dir: folder of ``model.pt``.
        model: whose state dict to save.
        options: what the model depends on besides, by id: written as ``options.yaml`` beside it.

    Raises:
        ValueError: at a validation whose key metric is not finite: by it, no model is better than another.
    """

    filename = "model.pt"

    def __init__(self, save_dir: str | Path, model: nn.Module, options: Mapping[str, Any] | None = None) -> None:
        self.save_dir, self.model, self.options = Path(save_dir), model, options
        self.forget()

    def forget(self) -> None:
        """Let the next model be the best."""
        self.best, self.since = math.inf, 0  # since: validations without a better one

    def attach(self, engine: Engine) -> None:
        """Follow MONAI's evaluator ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._look)

    def _look(self, engine: Any) -> None:
        name = engine.state.key_metric_name
        value = engine.state.metrics[name]
        if not math.isfinite(value):
            raise ValueError(
                f"the key metric {name} of this validation is {value}, and {self.filename} is chosen by it; it must be a finite "
                "number. Look at the cases of validation (are their masks all empty?) and at --validate::key_metric."
            )
        self.since += 1
        if value < self.best:
            self._write_options()
            saver = DiskSaver(str(self.save_dir), atomic=True, require_empty=False)
            saver(self.model.state_dict(), self.filename)
            self.best, self.since = float(value), 0

    def _write_options(self) -> None:
        if self.options is not None and idist.get_rank() == 0:
            with written_whole(self.save_dir / OPTIONS_FILE) as part:
                part.write_text(to_yaml(self.options) or "", encoding="utf-8")

    def state_dict(self) -> dict[str, float]:
        """Best metric so far, and validations since."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state_dict: Mapping[str, float]) -> None:
        """Continue from :meth:`state_dict`."""
        self.best, self.since = state_dict["best"], int(state_dict["since"])
