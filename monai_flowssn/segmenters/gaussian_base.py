"""The Gaussian base that the flows of a Flow-SSN start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["gaussian_base"]


def gaussian_base(net: nn.Module | None, image: Tensor, num_classes: int, std: float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B, K, *S) of u given the image.

    Args:
        net: ``net(image) -> (B, K or 2K, *S)``; 2K outputs are the mean and the log standard deviation. None is N(0, std^2 I).
        image: (B, C, *S).
        num_classes: K.
        std: standard deviation where the net does not give it.

    Raises:
        ValueError: if the net has another number of outputs.
    """
    if net is None:
        loc = image.new_zeros(len(image), num_classes, *image.shape[2:], dtype=torch.float32)
        return loc, torch.full_like(loc, std)
    loc = net(image).float()
    if loc.shape[1] not in (num_classes, 2 * num_classes):
        raise ValueError(f"the base has {loc.shape[1]} outputs; it needs num_classes = {num_classes}, or twice that.")
    if loc.shape[1] == num_classes:
        return loc, torch.full_like(loc, std)
    loc, log_scale = loc.chunk(2, dim=1)
    return loc, log_scale.clamp(math.log(1e-5), 10).exp()
