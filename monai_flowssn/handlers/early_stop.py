"""The end of a training that gets no better."""

from __future__ import annotations

from ignite.engine import Engine, Events

from monai_flowssn.handlers.best_checkpoint import BestCheckpoint


class EarlyStop:
    """End a training after ``patience`` validations without a better key metric.

    List it behind the validation and ``LastCheckpoint``. It has no state of its own, and a resumed training that had come to this
    end stays there.

    Args:
        best: the handler that knows the best metric.
        patience: number of validations, at least 1; ``None`` for no end.

    Raises:
        ValueError: if ``patience`` is below 1.
    """

    def __init__(self, best: BestCheckpoint, patience: int | None) -> None:
        if patience is not None and patience < 1:
            raise ValueError(
                f"patience is {patience}; at least one validation is needed: pass >= 1, or None for no end."
            )
        self.best, self.patience = best, patience

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``."""
        engine.add_event_handler(Events.STARTED | Events.EPOCH_COMPLETED, self._check)

    def _check(self, engine: Engine) -> None:
        if self.patience is not None and self.best.since >= self.patience:
            engine.terminate()
