"""The streamlined ADM U-Net: the network that Flow-SSN uses both for its base and for its flow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.networks.shapes import check_divisible

__all__ = ["StreamlinedUNet"]


def _norm(channels: int) -> nn.GroupNorm:
    groups = max(1, channels // 16)
    return nn.GroupNorm(groups if channels % groups == 0 else 1, channels)


def _zeroed(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ResidualBlock(nn.Module):
    """``[norm, SiLU, (resample), 3x3] -> [norm, FiLM(t), SiLU, dropout, zero-initialised 3x3]`` plus a shortcut.

    The second normalisation is scaled and shifted by the time features, ``h * (1 + scale) + shift`` (FiLM, Perez et al. 2018,
    arXiv 1709.07871). The shortcut is the identity, or a 3x3 convolution where the number of channels changes.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        time_width: int,
        dropout: float,
        resample: nn.Module,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.resample = resample
        self.norm1, self.norm2 = _norm(in_channels), _norm(out_channels)
        self.conv1 = conv(in_channels, out_channels, 3, padding=1)
        self.conv2 = _zeroed(conv(out_channels, out_channels, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.film = nn.Linear(time_width, 2 * out_channels) if time_width else None
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else conv(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        h = self.norm2(h)
        if self.film is not None:
            scale, shift = self.film(time)[(...,) + (None,) * (x.ndim - 2)].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)  # one pass over h
        return self.shortcut(self.resample(x)) + self.conv2(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Self-attention over all positions, residual and zero-initialised."""

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        if channels % self.heads:
            raise ValueError(
                f"{channels} channels make no equal heads of {head_width}; pass a head_width that divides them."
            )
        self.norm = _norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = _zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B, P, C), P positions
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, P, width)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(h).transpose(1, 2).reshape(x.shape)


class StreamlinedUNet(nn.Module):
    """The U-Net of Dhariwal & Nichol (2021, arXiv 2105.05233) with all but the essentials removed, in 2-D or 3-D.

    One encoder and one decoder of residual blocks, attention in the middle only, resampling inside residual blocks. Skips
    leave the stem, every block and every downsampling, so the decoder has one block more per level than the encoder.
    With ``time=True`` the forward takes ``t`` and every block is modulated by it; without, no time layer exists.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output; zero at initialisation.
        channels: width of each level; each level but the last halves the resolution.
        blocks: residual blocks per level.
        time: whether the network is conditioned on a time in [0, 1].
        attention: whether the middle attends over all its positions.
        head_width: channels per attention head.
        dropout: probability inside the residual blocks.
        patch: edge of the pixel patches that are moved to channels before the stem and back after the head (pixel unshuffle,
            Shi et al. 2016, arXiv 1609.05158). 1 is the published network; 2 computes everything at half the resolution,
            about four times cheaper, and still predicts every pixel.

    Raises:
        ValueError: if a spatial size of the input is not divisible by ``patch * 2 ** (len(channels) - 1)``.

    Example:
        >>> net = StreamlinedUNet(2, 1, 2, channels=(8, 16))
        >>> net(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 2, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        blocks: int = 1,
        time: bool = False,
        attention: bool = True,
        head_width: int = 64,
        dropout: float = 0.1,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}; the network exists in 2-D and 3-D: pass 2 or 3.")
        if time and channels[0] % 2:
            raise ValueError(
                f"channels begin with {channels[0]}; the time needs as many sines as cosines: pass an even width."
            )
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.patch, self.stride = patch, patch * 2 ** (len(channels) - 1)
        conv = Conv[Conv.CONV, spatial_dims]
        width = channels[0]
        self.time_width = 4 * width if time else 0
        self.time_features = width
        if time:
            self.time = nn.Sequential(
                nn.Linear(width, self.time_width), nn.SiLU(), nn.Linear(self.time_width, self.time_width), nn.SiLU()
            )

        def block(inputs: int, outputs: int, resample: nn.Module | None = None) -> ResidualBlock:
            resample = resample or nn.Identity()
            return ResidualBlock(
                spatial_dims, inputs, outputs, time_width=self.time_width, dropout=dropout, resample=resample
            )

        pixels = patch**spatial_dims
        self.stem = conv(pixels * in_channels, width, 3, padding=1)
        self.encoder, skips = nn.ModuleList(), [width]
        for level, outputs in enumerate(channels):
            for _ in range(blocks):
                self.encoder.append(block(width, outputs))
                skips.append(width := outputs)
            if level < len(channels) - 1:
                self.encoder.append(block(width, width, Pool[Pool.AVG, spatial_dims](2)))
                skips.append(width)
        middle = [block(width, width), block(width, width)]
        self.middle = nn.ModuleList([middle[0], Attention(width, head_width), middle[1]] if attention else middle)
        self.decoder = nn.ModuleList()
        for level, outputs in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.decoder.append(block(width + skips.pop(), outputs))
                width = outputs
            if level:
                self.decoder.append(block(width, width, nn.Upsample(scale_factor=2)))
        self.norm = _norm(width)
        self.head = _zeroed(conv(width, pixels * out_channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Compute the map.

        Args:
            x: (B, in_channels, *S).
            t: (B,) times in [0, 1]; needed exactly if the network was built with ``time=True``.

        Returns:
            (B, out_channels, *S).
        """
        self._check(x, t)
        # times in [0, 1] become those for which the frequencies were chosen (Ho et al. 2020, arXiv 2006.11239)
        time = None if t is None else self.time(get_timestep_embedding(1000.0 * t.float(), self.time_features))
        x = self.stem(x if self.patch == 1 else pixelunshuffle(x, self.spatial_dims, self.patch))
        skips = [x]
        for block in self.encoder:
            skips.append(x := block(x, time))
        for block in self.middle:
            x = block(x, time)
        for block in self.decoder:
            inputs = x if isinstance(block.resample, nn.Upsample) else torch.cat([x, skips.pop()], dim=1)
            x = block(inputs, time)
        x = self.head(F.silu(self.norm(x)))
        return x if self.patch == 1 else pixelshuffle(x, self.spatial_dims, self.patch)

    def _check(self, x: Tensor, t: Tensor | None) -> None:
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"input of shape {tuple(x.shape)}; a {self.spatial_dims}-D network takes (B, {self.in_channels}, *S): "
                "add the batch or channel axis, or build it with another in_channels."
            )
        check_divisible(x.shape[2:], self.stride)
        if (t is None) == bool(self.time_width):
            raise ValueError(
                f"t is {t}, but the network was built with time={bool(self.time_width)}: the two must agree."
            )
