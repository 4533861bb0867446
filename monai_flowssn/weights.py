"""The one way in which weights come into a network."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

__all__ = ["load_weights"]


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a file of weights, such as the ``models/model.pt`` of a bundle, into a network, on the device and in the type it has.

    Args:
        network: that the weights are of; it may be wrapped for several processes.
        path: of the file.

    Raises:
        ValueError: if the file is missing, damaged, or of another network.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"{path} does not exist; train first, or give a file of weights, such as the models/model.pt of a bundle "
            "(monai-flowssn list)."
        )
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"{path} holds no weights ({_short(error)}); give the models/model.pt of a training."
        ) from error
    try:
        getattr(network, "module", network).load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit this network; give the bundle, scale and options (channels, classes) it was trained with "
            f"({_short(error)} ...)."
        ) from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
