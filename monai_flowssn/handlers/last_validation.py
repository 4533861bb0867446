"""A training does not end without having looked at what it came to."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events


class LastValidation:
    """Validate after the last epoch too, where the interval between validations would leave it out.

    List it behind MONAI's ``ValidationHandler`` and before what saves the state.

    Args:
        validator: MONAI's evaluator.
        interval: epochs between validations.
    """

    def __init__(self, validator: Any, interval: int) -> None:
        self.validator, self.interval = validator, interval

    def attach(self, engine: Engine) -> None:
        """Follow MONAI's trainer ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate)

    def _validate(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        if epoch == engine.state.max_epochs and epoch % self.interval:  # a time budget makes its epoch the last
            self.validator.run(epoch)
