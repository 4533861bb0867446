"""The causal transformer over strips of pixels that makes an autoregressive flow parallel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["StripTransformer"]


class CausalBlock(nn.Module):
    """Pre-norm causal self-attention and MLP, both residual with zero-initialised outputs."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        for layer in (self.out, self.mlp[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, heads, P, width)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(h))
        return x + self.dropout(self.mlp(self.norm2(x)))


class StripTransformer(nn.Module):
    """Causal map over strips in raster order: the output of a strip depends on the strips before it alone.

    A convolution whose stride is its kernel makes one token of each strip; the tokens are shifted by a learnt start token, pass
    causal blocks, and a transposed convolution writes the outputs of each strip (De Sousa Ribeiro et al. 2025, arXiv 2507.18838,
    sec. 5.1). What lies inside one strip is conditionally independent. The positions are learnt, so the size is fixed.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input, K for a flow.
        out_channels: channels of the output, 2K for an affine flow.
        spatial_size: size of the input.
        strip: size of one strip, a divisor of ``spatial_size`` along every axis.
        width: of the tokens.
        blocks: number of causal blocks.
        heads: attention heads, a divisor of ``width``.
        dropout: probability inside the blocks.
        context_channels: channels of an image that every strip may see, 0 for none.

    Raises:
        ValueError: if a size does not fit; at the forward, if the input is of another size.

    Example:
        >>> net = StripTransformer(2, 2, 4, spatial_size=(16, 16), strip=(1, 8))
        >>> net(torch.zeros(1, 2, 16, 16)).shape
        torch.Size([1, 4, 16, 16])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        spatial_size: Sequence[int],
        strip: Sequence[int],
        width: int = 64,
        blocks: int = 1,
        heads: int = 1,
        dropout: float = 0.0,
        context_channels: int = 0,
    ) -> None:
        super().__init__()
        size, strip = tuple(spatial_size), tuple(strip)
        if not len(size) == len(strip) == spatial_dims or any(s % p for s, p in zip(size, strip)):
            raise ValueError(
                f"strips of {strip} do not tile {spatial_dims}-D images of {size}: give one size per axis, "
                "each strip size a divisor of the image's."
            )
        if width % heads:
            raise ValueError(f"width {width} cannot be shared by {heads} heads; pass a divisor of it.")
        self.in_channels, self.size = in_channels, size
        self.grid = tuple(s // p for s, p in zip(size, strip))
        conv, transposed = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        self.embed = conv(in_channels, width, strip, strip)
        self.context = conv(context_channels, width, strip, strip) if context_channels else None
        self.start = nn.Parameter(0.02 * torch.randn(1, 1, width))
        # of the strips, before the shift, so the last is not used: as in the authors' network, for their checkpoints
        self.positions = nn.Parameter(0.02 * torch.randn(1, prod(self.grid), width))
        self.blocks = nn.Sequential(*(CausalBlock(width, heads, dropout) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(
            transposed(width, out_channels, strip, strip), nn.GELU(), conv(out_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the maps.

        Args:
            x: (B, in_channels, *S).
            context: (B, context_channels, *S), exactly if the network was built with it.

        Returns:
            (B, out_channels, *S).
        """
        if tuple(x.shape[1:]) != (self.in_channels, *self.size):
            raise ValueError(
                f"input of shape {tuple(x.shape)}; the positions are learnt for (B, {self.in_channels}, *{self.size}): "
                f"crop or pad the image to {self.size}, or build the network for another spatial_size."
            )
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions  # (B, P, width)
        tokens = torch.cat([self.start.expand(len(x), -1, -1), tokens[:, :-1]], dim=1)
        if self.context is not None:
            tokens = tokens + self.context(context).flatten(2).transpose(1, 2)
        tokens = self.norm(self.blocks(tokens))
        return self.head(tokens.transpose(1, 2).unflatten(2, self.grid))
