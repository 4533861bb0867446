"""Exponential moving average of the weights with a warm-up of its decay."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn


class WarmUpEMAHandler(EMAHandler):
    r"""ignite's EMA with the decay :math:`d_n = \min(d, (1 + n) / (10 + n))` after :math:`n` updates.

    .. math:: \theta_{\text{EMA}} \leftarrow d_n \theta_{\text{EMA}} + (1 - d_n) \theta

    The warm-up is that of TensorFlow's ``ExponentialMovingAverage(num_updates)``; ignite's own is linear and starts
    anew when training is resumed. A training that begins averages from the weights it begins with, also where a handler before
    this one loads them. Validate and save ``ema.ema_model``; save and load the handler itself to continue.

    Args:
        model: the network that is trained.
        decay: the decay after the warm-up.

    Example:
        >>> from torch import nn
        >>> ema = WarmUpEMAHandler(nn.Linear(2, 1), decay=0.999)
        >>> ema.updates, ema.ema_model.training
        (0, False)
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.9999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"Got decay={decay}; it must lie between 0 and 1, e.g. 0.9999.")
        super().__init__(model, momentum=1 - decay)
        self.updates = 0

    def attach(
        self,
        engine: Engine,
        name: str = "ema_momentum",
        warn_if_exists: bool = True,
        event: Any = Events.ITERATION_COMPLETED,
    ) -> None:
        """Update after every ``event`` of ``engine``; ``engine.state`` shows ``1 - decay`` under ``name``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(event, self._warm_up, name)  # ahead of the update that super() attaches
        super().attach(engine, name, warn_if_exists, event)

    def _start(self) -> None:
        if self.updates == 0:
            self.ema_model.load_state_dict(self.model.state_dict())

    def _warm_up(self, engine: Engine, name: str) -> None:
        setattr(engine.state, name, max(self.momentum, 9 / (10 + self.updates)))
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and the number of updates."""
        return {"model": self.ema_model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.ema_model.load_state_dict(state_dict["model"])
        self.updates = state_dict["updates"]
