"""The weights that an evaluation or an inference begins with."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine
from monai.handlers import CheckpointLoader


class WeightsLoader(CheckpointLoader):
    """MONAI's ``CheckpointLoader``, that says what to do where the file is missing or of another network."""

    def __call__(self, engine: Engine) -> None:
        """Load the weights when the engine starts."""
        if not Path(self.load_path).is_file():
            raise ValueError(f"{self.load_path} does not exist; train first, or give the weights with --model_path.")
        try:
            super().__call__(engine)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.load_path} does not fit this network; give the bundle, scale and options it was trained with "
                f"({reason[:300]} ...)."
            ) from error
