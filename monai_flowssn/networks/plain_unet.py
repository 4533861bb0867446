"""The plain U-Net of the Probabilistic U-Net, and its encoder with a vector at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Pool
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.networks.shapes import check_divisible

__all__ = ["GaussianEncoder", "PlainUNet"]


def _level(spatial_dims: int, inputs: int, outputs: int, convs: int, norm: str | None) -> nn.Sequential:
    """``convs`` times [3x3 convolution, norm, ReLU], He-initialised."""
    layers = [
        Convolution(spatial_dims, outputs if i else inputs, outputs, act="relu", norm=norm, bias=norm is None)
        for i in range(convs)
    ]
    for name, parameter in (named for layer in layers for named in layer.named_parameters()):
        if name == "conv.weight":
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        elif name == "conv.bias":
            nn.init.zeros_(parameter)
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv 1505.04597) as in the Probabilistic U-Net (Kohl et al. 2018, arXiv 1806.05034).

    3x3 convolutions with ReLU, average pooling down, linear interpolation up, in 2-D or 3-D.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output, by a 1x1 convolution; None leaves it out and returns ``channels[0]`` features.
        channels: width of each level; each level but the last halves the resolution.
        convs: convolutions per level.
        norm: MONAI's normalisation after every convolution, ``"batch"`` or ``"instance"``, or None.

    Raises:
        ValueError: if a spatial size of the input is not divisible by ``2 ** (len(channels) - 1)``.

    Example:
        >>> PlainUNet(2, 1, 2, channels=(4, 8))(torch.zeros(1, 1, 16, 16)).shape
        torch.Size([1, 2, 16, 16])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int | None,
        *,
        channels: Sequence[int] = (32, 64, 128, 192),
        convs: int = 3,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}; the network exists in 2-D and 3-D: pass 2 or 3.")
        self.stride = 2 ** (len(channels) - 1)
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.pool = Pool[Pool.AVG, spatial_dims](2)
        inputs = [in_channels, *channels[:-1]]
        self.encoder = nn.ModuleList(_level(spatial_dims, i, o, convs, norm) for i, o in zip(inputs, channels))
        self.decoder = nn.ModuleList(
            _level(spatial_dims, above + below, above, convs, norm)
            for above, below in zip(channels[-2::-1], channels[:0:-1])
        )
        self.head = (
            Convolution(spatial_dims, channels[0], out_channels, kernel_size=1, conv_only=True)
            if out_channels is not None
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the map (B, out_channels or channels[0], *S) of x (B, in_channels, *S)."""
        check_divisible(x.shape[2:], self.stride)
        skips: list[Tensor] = []
        for level in self.encoder:
            skips.append(x := level(self.pool(x) if skips else x))
        skips.pop()
        for level in self.decoder:
            x = F.interpolate(x, scale_factor=2, mode=self.mode)
            x = level(torch.cat([x, skips.pop()], dim=1))
        return self.head(x)


class GaussianEncoder(nn.Module):
    """The encoding path of :class:`PlainUNet`, averaged over all positions and mapped to a vector.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_features: length of the vector.
        channels: width of each level.
        convs: convolutions per level.
        norm: MONAI's normalisation after every convolution, such as ``"batch"``, or None.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_features: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 192),
        convs: int = 3,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        pool = Pool[Pool.AVG, spatial_dims](2)
        inputs = [in_channels, *channels[:-1]]
        levels = [_level(spatial_dims, i, o, convs, norm) for i, o in zip(inputs, channels)]
        self.levels = nn.Sequential(*(nn.Sequential(pool, level) if i else level for i, level in enumerate(levels)))
        self.head = nn.Linear(channels[-1], out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_features) for x (B, in_channels, *S)."""
        return self.head(self.levels(x).flatten(2).mean(dim=2))
