"""The weights that an evaluation or an inference begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.handlers import CheckpointLoader

from monai_flowssn.handlers.trained_options import check_trained_options


class WeightsLoader(CheckpointLoader):
    """MONAI's ``CheckpointLoader``, that says what to do where the file is missing, or of another network or other options.

    Args:
        arguments: those of MONAI's.
        options: of the use of the model, by id; compared with those of its training, where they lie beside the file.
        force: whether to use it even if they differ.
    """

    def __init__(
        self, *arguments: Any, options: Mapping[str, Any] | None = None, force: bool = False, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.options = {} if options is None or force else options

    def __call__(self, engine: Engine) -> None:
        """Load the weights when the engine starts."""
        if not Path(self.load_path).is_file():
            raise ValueError(f"{self.load_path} does not exist; train first, or give the weights with --model_path.")
        check_trained_options(self.load_path, self.options)
        try:
            super().__call__(engine)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.load_path} does not fit this network; give the bundle, scale and options it was trained with "
                f"({reason[:300]} ...)."
            ) from error
