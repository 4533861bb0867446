"""What a model without an image is made of: a masked linear layer over pixels, and maps that are parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConstantMaps", "MaskedLinear"]


class MaskedLinear(nn.Module):
    r"""One linear layer over all the pixels of an image in which each pixel sees only those before it.

    The masked autoencoder (MADE, Germain et al. 2015, arXiv 1502.03509) without hidden units: with pixels in raster order,

    .. math:: h_i = b_i + \sum_{j < i} W_{ij} u_j, \quad u_j \in R^{K}, \; h_i \in R^{out},

    so that its Jacobian is strictly lower block-triangular. All channels of a pixel depend on the same earlier pixels, and not
    on one another. It is the flow network of the smallest autoregressive Flow-SSN (De Sousa Ribeiro et al. 2025, arXiv
    2507.18838, sec. 6.1). W and b start at zero: an affine flow then starts as the identity.

    It has :math:`out K d^2` weights for d pixels, so it is for small images only.

    Args:
        spatial_size: S, size of the images.
        in_channels: K.
        out_channels: 2 K for an affine flow, K for a volume-preserving one.

    Example:
        >>> MaskedLinear((16, 16), 2, 4)(torch.zeros(3, 2, 16, 16)).shape
        torch.Size([3, 4, 16, 16])
    """

    mask: Tensor

    def __init__(self, spatial_size: Sequence[int], in_channels: int, out_channels: int) -> None:
        super().__init__()
        pixels = math.prod(spatial_size)
        if min(*spatial_size, in_channels, out_channels) < 1:
            raise ValueError(f"sizes {(*spatial_size, in_channels, out_channels)}; all must be 1 or more.")
        self.in_shape, self.out_shape = (in_channels, *spatial_size), (out_channels, *spatial_size)
        self.weight = nn.Parameter(torch.zeros(out_channels * pixels, in_channels * pixels))
        self.bias = nn.Parameter(torch.zeros(out_channels * pixels))
        before = torch.ones(pixels, pixels).tril(-1)  # (pixel of the output, pixel of the input)
        self.register_buffer("mask", before.repeat(out_channels, in_channels), persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        """Map u (B, K, *S) to (B, out, *S)."""
        if u.shape[1:] != self.in_shape:
            raise ValueError(
                f"u has shape {tuple(u.shape)}, but the layer is for (B, {', '.join(map(str, self.in_shape))}): "
                "its weights belong to pixels, so crop or resample to that size."
            )
        return F.linear(u.flatten(1), self.weight * self.mask, self.bias).unflatten(1, self.out_shape)


class ConstantMaps(nn.Module):
    """Maps that are parameters, the same for every image: the network of a model of p(mask) without an image.

    Args:
        initial: (channels, *S), where they start.

    Example:
        >>> ConstantMaps(torch.zeros(2, 8, 8))(torch.ones(5, 1, 8, 8)).shape
        torch.Size([5, 2, 8, 8])
    """

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.maps = nn.Parameter(initial.detach().clone())

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps (B, channels, *S) for image (B, C, *S), of which only B is used."""
        return self.maps.expand(len(image), *self.maps.shape)
