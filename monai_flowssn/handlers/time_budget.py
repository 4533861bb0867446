"""Train for a given time."""

from __future__ import annotations

import time

import ignite.distributed as idist
from ignite.engine import Engine, Events


class TimeBudget:
    """End a training after so many seconds spent in its epochs, in good order.

    Unlike ignite's ``TimeLimit`` the epoch that is under way is completed, so its validation and checkpoints happen. Time in
    handlers that come after this one at the end of an epoch, such as validation, is not counted: put it first.

    Args:
        seconds: time in epochs, above 0; ``None`` for no limit.

    Raises:
        ValueError: if ``seconds`` is not above 0.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise ValueError(f"seconds is {seconds}; a budget must be above 0: pass None for no limit.")
        self.seconds = float("inf") if seconds is None else seconds
        self.spent = self._started = 0.0
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Watch the trainer ``engine``."""
        self._engine = engine
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._stop)
        if self.seconds < float("inf"):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _start(self) -> None:
        self._started = time.perf_counter()

    def _stop(self) -> None:
        self.spent += time.perf_counter() - self._started

    def _check(self, engine: Engine) -> None:
        over = self.spent + time.perf_counter() - self._started >= self.seconds
        if idist.get_world_size() > 1:  # clocks differ, and processes that stop at different steps would wait for ever
            over = bool(idist.broadcast(float(over), src=0))
        if over:
            engine.state.max_epochs = engine.state.epoch
            engine.terminate_epoch()

    def state_dict(self) -> dict[str, float]:
        """Seconds spent, so that a resumed training has only the rest."""
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Continue from :meth:`state_dict`; where nothing is left, the training that has just started ends at once."""
        self.spent = state_dict["spent"]
        if self._engine is not None and self.spent >= self.seconds:
            self._engine.terminate()
