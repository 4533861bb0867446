"""The checkpoint with the best key metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.handlers import CheckpointSaver


class BestCheckpoint(CheckpointSaver):
    """MONAI's saver of the best key metric, lower is better, with a state.

    Its memory goes into the checkpoint that a training continues from; without it the first validation of a resumed training
    would count as the best and overwrite a better model.

    Args:
        save_dir: folder of ``model.pt``.
        save_dict: the one thing to save, by name.
    """

    def __init__(self, save_dir: str, save_dict: Mapping[str, Any]) -> None:
        super().__init__(
            save_dir,
            dict(save_dict),
            save_key_metric=True,
            key_metric_filename="model.pt",
            key_metric_negative_sign=True,
        )

    def state_dict(self) -> dict[str, Any]:
        """Best metric so far and its file."""
        return dict(self._key_metric_checkpoint.state_dict())  # type: ignore[union-attr]
