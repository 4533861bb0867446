"""The networks of PHiSeg: a ladder of Gaussian latent maps, and the decoder that turns the latents into logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from monai_flowssn.networks.shapes import check_divisible

__all__ = ["GaussianLadder", "LadderDecoder"]

Norm = str | tuple | None


def _units(spatial_dims: int, inputs: int, outputs: int, count: int, norm: Norm) -> nn.Sequential:
    """``count`` times [3x3 convolution, norm, ReLU]."""
    widths = [inputs] + count * [outputs]
    return nn.Sequential(
        *(
            Convolution(spatial_dims, first, second, act="relu", norm=norm, bias=norm is None)
            for first, second in pairwise(widths)
        )
    )


def _up(spatial_dims: int) -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="bilinear" if spatial_dims == 2 else "trilinear", align_corners=False)


def _levels_without_latents(channels: Sequence[int], latent_levels: int) -> int:
    if not 1 <= latent_levels <= len(channels):
        raise ValueError(
            f"latent_levels is {latent_levels} on {len(channels)} levels (channels {tuple(channels)}); "
            "pass at least 1 and at most one per level."
        )
    return len(channels) - latent_levels


class GaussianLadder(nn.Module):
    r"""Latent maps, each Gaussian given the input and the next coarser map (Baumgartner et al. 2019, arXiv 1906.04045, sec. 2).

    .. math:: p(z_1, \dots, z_L | x) = p(z_L | x) \prod_{l < L} p(z_l | x, z_{l+1}), \quad
        z_l \sim N(\mu_l, \mathrm{diag} \, \sigma_l^2)

    :math:`z_1` is the finest. The encoder, three convolutions a level with average pooling in between, sees the input alone; the
    latents live on its L coarsest levels. Widths are those of the authors' code.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        channels: width of each level; each level but the last halves the resolution.
        latent_levels: L, at most one per level.
        latent_channels: channels of each latent map.
        norm: MONAI's normalisation after every convolution, such as ``"batch"`` or ``("group", {"num_groups": 4})``; or None.

    Raises:
        ValueError: for more latent levels than levels; at the forward, if a spatial size cannot be halved that often.

    Example:
        >>> ladder = GaussianLadder(2, 1, channels=(8, 16, 16), latent_levels=2)
        >>> [tuple(features.shape) for features in ladder(torch.zeros(1, 1, 32, 32))]
        [(1, 16, 16, 16), (1, 16, 8, 8)]
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 192, 192, 192, 192),
        latent_levels: int = 5,
        latent_channels: int = 2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        skip = _levels_without_latents(channels, latent_levels)
        self.strides = tuple(2**level for level in range(skip, len(channels)))
        self.latent_channels = latent_channels
        self.encoder = nn.ModuleList(
            _units(spatial_dims, inputs, outputs, 3, norm)
            for inputs, outputs in zip((in_channels, *channels), channels)
        )
        self.pool, self.up = Pool[Pool.AVG, spatial_dims](2), _up(spatial_dims)
        risen = latent_channels * channels[0]  # width of what comes from the coarser latents
        self.rise = nn.ModuleList(
            _units(spatial_dims, latent_channels, risen, 2, norm) for _ in range(latent_levels - 1)
        )
        self.merge = nn.ModuleList(
            _units(spatial_dims, channels[level + skip] + risen, channels[level], 2, norm)
            for level in range(latent_levels - 1)
        )
        conv = Conv[Conv.CONV, spatial_dims]
        self.heads = nn.ModuleList(
            conv(width, 2 * latent_channels, 1) for width in (*channels[: latent_levels - 1], channels[-1])
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features (B, width, *S_l) of x (B, in_channels, *S) at the L levels of the latents, the finest first."""
        check_divisible(x.shape[2:], self.strides[-1])
        features: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            features.append(x)
        return tuple(features[-len(self.strides) :])

    def descend(
        self, features: Sequence[Tensor], choose: Callable[[int, Normal], Tensor]
    ) -> tuple[list[Tensor], list[Normal]]:
        """Walk from the coarsest latent to the finest.

        Args:
            features: what ``forward`` returns.
            choose: ``choose(level, gaussian) -> z`` of the Gaussian's shape (B, latent_channels, *S_l); level 0 is the finest.

        Returns:
            The chosen latents and their Gaussians, the finest first.
        """
        latents: list[Tensor] = []
        gaussians: list[Normal] = []
        for level in reversed(range(len(self.strides))):
            h = features[level]
            if latents:
                h = self.merge[level](torch.cat([h, self.rise[level](self.up(latents[0]))], dim=1))
            mean, log_std = self.heads[level](h).float().chunk(2, dim=1)
            # clamped, because its overflow is a known failure
            gaussians.insert(0, Normal(mean, log_std.clamp(-10, 10).exp(), validate_args=False))
            latents.insert(0, choose(level, gaussians[0]))
        return latents, gaussians


class LadderDecoder(nn.Module):
    """Logits of a ladder of latents, every level added to the coarser ones (Baumgartner et al. 2019, arXiv 1906.04045, sec. 2).

    Each latent map passes two convolutions, rises by as many levels as have no latents, and joins what rises from the coarser
    ones, so that the finest logits have the size of the image. The image itself is not seen.

    Args:
        spatial_dims: 2 or 3.
        out_channels: K.
        channels: as of the ladder.
        latent_levels: as of the ladder.
        latent_channels: as of the ladder.
        norm: as of ``GaussianLadder``.

    Raises:
        ValueError: for more latent levels than levels.

    Example:
        >>> decoder = LadderDecoder(2, 3, channels=(8, 16, 16), latent_levels=2)
        >>> [tuple(logits.shape) for logits in decoder([torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 8, 8)])]
        [(1, 3, 32, 32), (1, 3, 16, 16)]
    """

    def __init__(
        self,
        spatial_dims: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 192, 192, 192, 192),
        latent_levels: int = 5,
        latent_channels: int = 2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        skip = _levels_without_latents(channels, latent_levels)
        self.up = _up(spatial_dims)
        self.embed = nn.ModuleList()
        for width in channels[:latent_levels]:
            layers: list[nn.Module] = [_units(spatial_dims, latent_channels, width, 2, norm)]
            for _ in range(skip):
                layers += [self.up, _units(spatial_dims, width, width, 1, norm)]
            self.embed.append(nn.Sequential(*layers))
        widths = [*channels[skip:-1], channels[latent_levels - 1]]  # of the merged; the coarsest merges with nothing
        self.rise = nn.ModuleList(
            _units(spatial_dims, widths[level + 1], channels[level], 1, norm) for level in range(latent_levels - 1)
        )
        self.merge = nn.ModuleList(
            _units(spatial_dims, 2 * channels[level], widths[level], 2, norm) for level in range(latent_levels - 1)
        )
        conv = Conv[Conv.CONV, spatial_dims]
        self.heads = nn.ModuleList(conv(width, out_channels, 1) for width in widths)

    def forward(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """Decode.

        Args:
            latents: (B, latent_channels, *S_l), the finest first.

        Returns:
            At index l the logits of that level plus those of all coarser ones, (B, K, *S / 2^l); index 0 is the result.
        """
        h = self.embed[-1](latents[-1])
        sums = [self.heads[-1](h).float()]
        for level in reversed(range(len(self.rise))):
            risen = self.rise[level](self.up(h))
            h = self.merge[level](torch.cat([self.embed[level](latents[level]), risen], dim=1))
            sums.insert(0, self.heads[level](h).float() + F.interpolate(sums[0], scale_factor=2.0))
        return sums
