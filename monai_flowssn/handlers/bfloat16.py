"""Training in bfloat16 without a gradient scaler."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Events


class UnscaledBFloat16:
    """Switch off the gradient scaler that MONAI's trainer makes whenever it autocasts, where it does so to bfloat16.

    bfloat16 has the range of float32: nothing underflows, and a scaler would only skip steps whose gradient is not finite, which
    :class:`~monai_flowssn.handlers.StopOnNonFinite` is there to report. List it first: others ask for the scaler at the start.
    """

    def attach(self, engine: Any) -> None:
        """Watch MONAI's trainer ``engine``."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Take the scaler out."""
        if engine.scaler is not None and engine.amp_kwargs.get("dtype") is torch.bfloat16:
            engine.scaler = torch.amp.GradScaler(enabled=False)  # not None: MONAI would no longer autocast
