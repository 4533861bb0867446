"""The weights that an evaluation or an inference begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from monai_flowssn.handlers.trained_options import check_trained_options
from monai_flowssn.weights import load_weights


class WeightsLoader:
    """Load weights when an engine starts (:func:`~monai_flowssn.weights.load_weights`), if the model is used as it was trained.

    Args:
        load_path: the file.
        network: to load them into.
        options: of the use of the model, by id; compared with those of its training, where they lie beside the file.
        force: whether to use it even if they differ.
    """

    def __init__(
        self,
        load_path: str | Path,
        network: nn.Module,
        *,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> None:
        self.load_path, self.network = load_path, network
        self.options = {} if options is None or force else options

    def attach(self, engine: Engine) -> None:
        """Load them for MONAI's ``engine``."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the options, and load the weights."""
        check_trained_options(self.load_path, self.options)
        load_weights(self.network, self.load_path)
