"""The networks of the Joint Probabilistic U-Net: dense blocks, a ladder of Gaussian latent vectors, and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn
from torch.distributions import Distribution

from monai_flowssn.networks.shapes import check_divisible

__all__ = ["JointDecoder", "VectorLadder"]

D = TypeVar("D", bound=Distribution)


def _unit(spatial_dims: int, inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """[batch norm, ReLU, convolution]."""
    conv = Conv[Conv.CONV, spatial_dims](inputs, outputs, kernel, padding=kernel // 2)
    return nn.Sequential(Norm[Norm.BATCH, spatial_dims](inputs), nn.ReLU(), conv)


def _tile(z: Tensor, like: Tensor) -> Tensor:
    """Return (B, latent_dim, *S) for z (B, latent_dim) and a map (B, ..., *S)."""
    return z.to(like.dtype)[(...,) + (None,) * (like.ndim - 2)].expand(-1, -1, *like.shape[2:])


class DenseBlock(nn.Module):
    """Two 3x3 units that each see all features before them (DenseNet, Huang et al. 2017, arXiv 1608.06993), then a 1x1 unit."""

    def __init__(self, spatial_dims: int, inputs: int, outputs: int, growth: int) -> None:
        super().__init__()
        self.first = _unit(spatial_dims, inputs, growth)
        self.second = _unit(spatial_dims, inputs + growth, growth)
        self.out = _unit(spatial_dims, inputs + 2 * growth, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.first(x)], dim=1)
        return self.out(torch.cat([x, self.second(x)], dim=1))


class VectorLadder(nn.Module):
    r"""Latent vectors, one a level, each given the features of its level and the next coarser vector.

    .. math:: p(z_1, \dots, z_L | x) = p(z_L | x) \prod_{l < L} p(z_l | x, z_{l+1})

    as in the Joint Probabilistic U-Net (Zhang et al. 2022, doi 10.1145/3503161.3548115). :math:`z_1` is of the finest level. The
    encoder, a dense block a level with average pooling in between, sees the input alone. The mean and the log standard deviation
    of a level are the average over all positions of what two units make of the features of the next coarser level with its vector
    tiled over them; those of the coarsest, of its own features, refined. The public code pools these to 8x8 first, which is the
    size that they have in its images of 128x128.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        channels: width of each level; each level but the last halves the resolution.
        latent_dim: length of each latent vector.
        growth: channels that a unit of a dense block adds.

    Raises:
        ValueError: at the forward, if a spatial size cannot be halved that often.

    Example:
        >>> ladder = VectorLadder(2, 1, channels=(8, 16), latent_dim=3, growth=4)
        >>> [tuple(features.shape) for features in ladder(torch.zeros(1, 1, 32, 32))]
        [(1, 8, 32, 32), (1, 16, 16, 16), (1, 16, 16, 16)]
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 192, 192),
        latent_dim: int = 8,
        growth: int = 32,
    ) -> None:
        super().__init__()
        self.levels, self.latent_dim = len(channels), latent_dim
        conv = Conv[Conv.CONV, spatial_dims]
        self.stem = conv(in_channels, channels[0], 3, padding=1)
        self.pool = Pool[Pool.AVG, spatial_dims](2)
        self.encoder = nn.ModuleList(
            DenseBlock(spatial_dims, inputs, outputs, growth)
            for inputs, outputs in zip((channels[0], *channels), channels)
        )
        top = channels[-1]
        self.top = nn.Sequential(_unit(spatial_dims, top, top // 2), _unit(spatial_dims, top // 2, top))
        self.coarsest = _unit(spatial_dims, top, 2 * latent_dim, 1)
        self.below = nn.ModuleList(
            nn.Sequential(_unit(spatial_dims, width + latent_dim, width), _unit(spatial_dims, width, 2 * latent_dim, 1))
            for width in channels[1:]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features (B, width, *S / 2^l) of x (B, in_channels, *S), the finest first, then refined coarsest ones."""
        check_divisible(x.shape[2:], 2 ** (self.levels - 1))
        x = self.stem(x)
        features: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            features.append(x := block(self.pool(x) if level else x))
        return (*features, x + self.top(x))

    def descend(
        self,
        features: Sequence[Tensor],
        distribution: Callable[[int, Tensor], D],
        choose: Callable[[int, D], Tensor],
    ) -> tuple[list[Tensor], list[D]]:
        """Walk from the coarsest latent to the finest.

        Args:
            features: what ``forward`` returns.
            distribution: ``distribution(level, parameters)`` of z, for mean and log standard deviation (B, 2 * latent_dim);
                level 0 is the finest.
            choose: ``choose(level, distribution) -> z`` (B, latent_dim).

        Returns:
            The chosen latents and their distributions, the finest first.
        """
        latents: list[Tensor] = []
        distributions: list[D] = []
        for level in reversed(range(self.levels)):
            if latents:
                coarser = features[level + 1]
                h = self.below[level](torch.cat([coarser, _tile(latents[0], coarser)], dim=1))
            else:
                h = self.coarsest(features[-1])
            distributions.insert(0, distribution(level, h.flatten(2).mean(dim=2)))
            latents.insert(0, choose(level, distributions[0]))
        return latents, distributions


class _VectorDecoder(nn.Module):
    """From latent vectors to a map: a dense block a level, the vector tiled over its input, linear interpolation in between."""

    def __init__(
        self, spatial_dims: int, *, channels: Sequence[int], latent_dim: int, growth: int, skips: bool
    ) -> None:
        super().__init__()
        self.skips = skips
        self.up = nn.Upsample(scale_factor=2, mode="bilinear" if spatial_dims == 2 else "trilinear")
        self.blocks = nn.ModuleList(
            DenseBlock(spatial_dims, above + latent_dim + (width if skips else 0), width, growth)
            for above, width in zip((*channels[1:], channels[-1]), channels)
        )

    def forward(self, latents: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
        h = features[-1]
        for level in reversed(range(len(latents))):
            h = h if level == len(latents) - 1 else self.up(h)
            parts = [h, _tile(latents[level], h)]
            h = self.blocks[level](torch.cat([*parts, features[level]] if self.skips else parts, dim=1))
        return h


class JointDecoder(nn.Module):
    """From latent vectors and the features of a :class:`VectorLadder` to an image and the logits of its mask.

    Both begin at the refined features of the coarsest level and rise level by level, each with the vector of the level. The mask
    also sees the features of every level, and in the end those that make the image.

    Args:
        spatial_dims: 2 or 3.
        image_channels: C.
        out_channels: K.
        channels: as of the ladder.
        latent_dim: as of the ladder.
        growth: as of the ladder.

    Example:
        >>> ladder = VectorLadder(2, 1, channels=(8, 16), latent_dim=3, growth=4)
        >>> decoder = JointDecoder(2, 1, 4, channels=(8, 16), latent_dim=3, growth=4)
        >>> image, logits = decoder([torch.zeros(2, 3), torch.zeros(2, 3)], ladder(torch.zeros(2, 1, 32, 32)))
        >>> image.shape, logits.shape
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 4, 32, 32]))
    """

    def __init__(
        self,
        spatial_dims: int,
        image_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 192, 192),
        latent_dim: int = 8,
        growth: int = 32,
    ) -> None:
        super().__init__()

        def decoder(skips: bool) -> _VectorDecoder:
            return _VectorDecoder(spatial_dims, channels=channels, latent_dim=latent_dim, growth=growth, skips=skips)

        conv = Conv[Conv.CONV, spatial_dims]
        self.image, self.mask = decoder(skips=False), decoder(skips=True)
        self.image_head = conv(channels[0], image_channels, 3, padding=1)
        self.mask_head = conv(2 * channels[0], out_channels, 3, padding=1)

    def forward(self, latents: Sequence[Tensor], features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode.

        Args:
            latents: (B, latent_dim), the finest first.
            features: what the ladder's ``forward`` returns.

        Returns:
            The image (B, C, *S) and the logits (B, K, *S).
        """
        seen = self.image(latents, features)
        return self.image_head(seen), self.mask_head(torch.cat([self.mask(latents, features), seen], dim=1))
