"""How much of a training is done, by the clock, the processor or the epochs."""

from __future__ import annotations

import time

import ignite.distributed as idist
from ignite.engine import Engine, Events


class Budget:
    """End a training after a given time, in good order, and tell how much of it is done.

    Unlike with ignite's ``TimeLimit`` the epoch that is under way is completed, so that its validation and checkpoints happen.
    Attach it before what asks for ``progress``, such as a learning rate that falls to zero over the budget.

    Args:
        seconds: wall-clock time of the whole run, validations included; ``None`` for no limit.
        cpu_seconds: processor time that this process spends in its epochs, all threads together and validations not counted, so
            that trainings beside each other on a busy machine get the same work; ``None`` for no limit. Workers of a loader are
            processes of their own.

    Raises:
        ValueError: if a limit is not above 0.
    """

    def __init__(self, *, seconds: float | None = None, cpu_seconds: float | None = None) -> None:
        for name, limit in {"seconds": seconds, "cpu_seconds": cpu_seconds}.items():
            if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
                raise ValueError(f"{name} is {limit!r}; a budget is a number above 0: pass None for no limit.")
        self.seconds, self.cpu_seconds = seconds, cpu_seconds
        self.spent = self.cpu_spent = 0.0  # up to the last mark of each clock
        self._mark = self._cpu_mark = 0.0
        self._engine: Engine | None = None
        #: Share of the training that is done, from 0 to 1; the same in all processes.
        self.progress = 0.0

    def attach(self, engine: Engine) -> None:
        """Watch the trainer ``engine``."""
        self._engine = engine
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._read_cpu)

    def _start(self) -> None:
        self._mark = time.perf_counter()

    def _start_epoch(self, engine: Engine) -> None:
        self._cpu_mark = time.process_time()
        self._measure(engine)

    def _read_cpu(self) -> None:
        now = time.process_time()
        self.cpu_spent, self._cpu_mark = self.cpu_spent + now - self._cpu_mark, now

    def _read(self) -> None:
        now = time.perf_counter()
        self.spent, self._mark = self.spent + now - self._mark, now

    def _share_of_limits(self) -> float:
        """Return how much of the limit that is nearest is spent; 1 or more at its end, 0 without limits."""
        limits = [(self.spent, self.seconds), (self.cpu_spent, self.cpu_seconds)]
        return max((spent / limit for spent, limit in limits if limit is not None), default=0.0)

    def _measure(self, engine: Engine) -> bool:
        """Bring ``progress`` up to date; return whether a limit is reached."""
        self._read()
        timed = self._share_of_limits()
        if idist.get_world_size() > 1:  # clocks differ, and processes that stop at different steps would wait for ever
            timed = float(idist.broadcast(timed, src=0))  # type: ignore[arg-type]
        counted = engine.state.iteration / (engine.state.max_epochs * engine.state.epoch_length)  # type: ignore[operator]
        self.progress = min(1.0, max(timed, counted))
        return timed >= 1

    def _look(self, engine: Engine) -> None:
        self._read_cpu()
        if self._measure(engine):
            engine.state.max_epochs = engine.state.epoch
            engine.terminate_epoch()

    def state_dict(self) -> dict[str, float]:
        """Seconds spent, so that a resumed training has only the rest."""
        if self._engine is not None:
            self._read()
        return {"spent": self.spent, "cpu_spent": self.cpu_spent}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Continue from :meth:`state_dict`; where nothing is left, the training that has just started ends at once."""
        self.spent, self.cpu_spent = state_dict["spent"], state_dict["cpu_spent"]
        self._mark = time.perf_counter()
        if self._engine is not None and self._share_of_limits() >= 1:
            self._engine.terminate()
