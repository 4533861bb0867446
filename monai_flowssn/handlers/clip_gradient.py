"""Clip the gradient."""

from __future__ import annotations

from typing import Any

from monai.engines import IterationEvents
from torch.nn.utils import clip_grad_norm_


class ClipGradient:
    """Scale the gradient to a Euclidean norm of at most ``max_norm``, between MONAI's backward pass and its optimiser step.

    Args:
        max_norm: bound of the norm over all parameters of the optimiser, above 0.

    Raises:
        ValueError: if ``max_norm`` is not above 0.
    """

    def __init__(self, max_norm: float) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm is {max_norm}; the norm to clip to must be above 0, e.g. 10.")
        self.max_norm = max_norm

    def attach(self, engine: Any) -> None:
        """Clip at every step of MONAI's trainer ``engine``."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Scale the gradient of all parameters down to the norm, where it is longer."""
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)  # the scaler then steps without dividing again
        clip_grad_norm_([p for group in engine.optimizer.param_groups for p in group["params"]], self.max_norm)
