"""A light decoder that takes a prompt."""

from __future__ import annotations

from monai.networks.blocks import Convolution
from torch import Tensor, nn

__all__ = ["PromptDecoder"]


class PromptDecoder(nn.Module):
    """Add a prompt to features and apply a few 3x3 convolutions, as light as the mask decoder of SAM is beside its encoder.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels F of the features and of the prompt.
        out_channels: channels of the output, by a 1x1 convolution.
        width: channels between the convolutions.
        layers: number of 3x3 convolutions, at least 1, each with normalisation and ReLU.
        norm: MONAI's normalisation.

    Raises:
        ValueError: for less than one layer.

    Example:
        >>> import torch
        >>> decoder = PromptDecoder(2, 8, 3, width=16)
        >>> decoder(torch.zeros(1, 8, 32, 32), torch.zeros(1, 8)).shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        layers: int = 2,
        norm: str | tuple = ("group", {"num_groups": 4}),
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers is {layers}; the prompt needs a nonlinearity after it: pass 1 or more.")
        units = [
            Convolution(spatial_dims, width if i else in_channels, width, act="relu", norm=norm) for i in range(layers)
        ]
        self.layers = nn.Sequential(
            *units, Convolution(spatial_dims, width, out_channels, kernel_size=1, conv_only=True)
        )

    def forward(self, features: Tensor, prompt: Tensor) -> Tensor:
        """Return (B, out_channels, *S) for features (B, F, *S) and a prompt that is a map (B, F, *S) or a vector (B, F)."""
        if prompt.ndim == 2:
            prompt = prompt[(...,) + (None,) * (features.ndim - 2)]
        return self.layers(features + prompt)
