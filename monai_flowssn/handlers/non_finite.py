"""Stop a training whose loss or gradient is no longer a number, and keep the last good state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.engines import IterationEvents
from torch.nn.utils import get_total_norm

from monai_flowssn.files import saver


class StopOnNonFinite:
    """Raise on a non-finite loss or gradient, after saving the weights that came before it.

    The check stands between the backward pass and the optimiser step of MONAI's ``SupervisedTrainer``: the weights are
    still those of the last good step, and no copy of them is needed. A finite loss can have an infinite gradient, which
    would ruin the weights one step before the loss shows it, so both are looked at; under a gradient scaler, which skips such
    steps and halves its scale, the loss and a scale that has fallen below 1. Several processes stop together: their gradient is
    already the common one, and under a scaler they tell each other.

    Args:
        save_dir: folder of the checkpoint ``last_good.ckpt``.
        save_dict: what to save, as in MONAI's ``CheckpointSaver``.
    """

    filename = "last_good.ckpt"

    def __init__(self, save_dir: str | Path, save_dict: Mapping[str, Any]) -> None:
        self.save_dir, self.save_dict = Path(save_dir), dict(save_dict)
        self._buffers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def attach(self, engine: Any) -> None:
        """Watch MONAI's trainer ``engine``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._remember_buffers)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._check)

    def _remember_buffers(self, engine: Any) -> None:
        # Batch normalisation takes a bad batch into its running statistics already in the forward pass.
        self._buffers = [(buffer, buffer.clone()) for buffer in engine.network.buffers()]

    def _check(self, engine: Any) -> None:
        loss = engine.state.output["loss"].detach()
        scaled = engine.scaler is not None and engine.scaler.is_enabled()
        finite = bool(torch.isfinite(loss))
        if scaled and idist.get_world_size() > 1:
            finite = bool(idist.all_reduce(float(finite), op="MIN"))
        if not finite:
            self._stop(engine, f"a loss of {loss.item()}")
        elif scaled:
            if engine.scaler.get_scale() < 1:  # of 65536 at the start; 2,000 good steps double it
                self._stop(
                    engine, f"non-finite gradients so often that their scale fell below 1 (loss {loss.item():.4g})"
                )
        else:
            parameters = [p for group in engine.optimizer.param_groups for p in group["params"]]
            # The maximum norm: unlike the Euclidean one it cannot overflow on finite gradients.
            if not torch.isfinite(get_total_norm([p.grad for p in parameters if p.grad is not None], float("inf"))):
                self._stop(engine, f"a non-finite gradient (loss {loss.item():.4g})")

    def _stop(self, engine: Any, what: str) -> None:
        for buffer, good in self._buffers:
            buffer.copy_(good)
        self._save(engine)
        raise FloatingPointError(
            f"Got {what} in epoch {engine.state.epoch}, iteration {engine.state.iteration}, "
            f"cases {', '.join(_case_ids(engine.state.batch)) or 'unknown'}; training needs finite numbers. "
            "Check these cases for NaN and extreme intensities, or lower the learning rate or the gradient clip. "
            f"The state before this step is in {self.save_dir / self.filename}."
        )

    def _save(self, engine: Engine) -> None:
        Checkpoint(self.save_dict, saver(self.save_dir), filename_pattern=self.filename)(engine)


def _case_ids(batch: Any) -> list[str]:
    """Ids of a collated batch, or of a list of items, each once."""
    items = batch if isinstance(batch, (list, tuple)) else [batch]
    ids: list[str] = []
    for item in items:
        case = item.get("case") if isinstance(item, Mapping) else None
        if case is None and isinstance(item, Mapping):
            case = getattr(item.get("image"), "meta", {}).get("filename_or_obj", [])
        ids += [case] if isinstance(case, str) else list(map(str, case or []))
    return list(dict.fromkeys(ids))
