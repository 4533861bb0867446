"""How long the draws of one image take."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents


class SamplingTime:
    """Put the median seconds per image, from batch to draws, into the metrics of an evaluation.

    Data loading and metrics are not counted; the copy to the device is. The median is over batches, so a slow first one does not
    matter.

    Args:
        name: of the metric.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._started = 0.0
        self._seconds: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Watch the evaluator ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._seconds.clear)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _start(self, engine: Any) -> None:
        self._started = _now(engine)

    def _stop(self, engine: Any) -> None:
        self._seconds.append((_now(engine) - self._started) / len(engine.state.output["pred"]))

    def _report(self, engine: Any) -> None:
        if self._seconds:
            engine.state.metrics[self.name] = median(self._seconds)


def _now(engine: Any) -> float:
    """Return the time at which all that was asked of the engine's GPU is done."""
    if engine.state.device.type == "cuda":
        torch.cuda.synchronize(engine.state.device)
    return time.perf_counter()
