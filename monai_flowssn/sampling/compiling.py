"""Compilation of the network that a draw evaluates at every step."""

from __future__ import annotations

import warnings

import torch
from torch import nn

__all__ = ["compile_steps"]


def compile_steps(segmenter: nn.Module) -> None:
    """Compile the network that a draw evaluates at every step with ``torch.compile``, in place.

    The first draw of every shape (image size, batch, draws at once) then takes half a minute or more, later ones less time.
    Weights and their names stay as they are. Where nothing can be compiled, such as without a C++ compiler, a warning says so and
    the network stays as it is.

    Args:
        segmenter: a :class:`~monai_flowssn.segmenters.StochasticSegmenter` that draws in steps.

    Raises:
        ValueError: for a method that draws in one pass.
    """
    name = getattr(segmenter, "step_network", None)
    if name is None:
        raise ValueError(
            f"{type(segmenter).__name__} draws in one pass; there are no steps to be compiled: leave `compile` false."
        )
    device = next(segmenter.parameters()).device
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a missing or broken compiler raises
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"torch.compile does not work here ({reason}); drawing without it.", stacklevel=2)
        return
    getattr(segmenter, name).compile(dynamic=False)
