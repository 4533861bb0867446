"""The parts of SAM as networks of a promptable segmenter: encoder with low-rank updates, decoder with a dense prompt.

SAM itself (Kirillov et al. 2023, arXiv 2304.02643) is the package ``segment-anything``; what it builds is handed over, with the
weights of a file that a user has or with random ones, so that nothing is downloaded and nothing of it is imported here.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.networks.shapes import check_divisible

__all__ = ["LowRankQV", "SAMDecoder", "SAMEncoder"]


class LowRankQV(nn.Module):
    """A linear layer to queries, keys and values, frozen, with updates of low rank to queries and values.

    LoRA (Hu et al. 2022, arXiv 2106.09685): W x + B A x, where B starts at 0.

    Args:
        qkv: (..., D) -> (..., 3 D).
        rank: of the updates, at least 1.
    """

    def __init__(self, qkv: nn.Linear, *, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}; an update needs at least one dimension: pass 1 or more.")
        self.qkv = qkv.requires_grad_(False)
        self.down = nn.ModuleList(nn.Linear(qkv.in_features, rank, bias=False) for _ in range(2))
        self.up = nn.ModuleList(nn.Linear(rank, qkv.in_features, bias=False) for _ in range(2))
        for weight in self.up.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        q, v = (up(down(x)) for down, up in zip(self.down, self.up))
        return self.qkv(x) + torch.cat([q, torch.zeros_like(q), v], dim=-1)


class SAMEncoder(nn.Module):
    """SAM's image encoder, frozen but for low-rank updates, for 2-D images of any size that its patches divide.

    Its absolute positions are interpolated to the size of the image, its relative ones by the encoder itself. An image of one
    channel is given three times. Intensities are used as they are, from -1 to 1, about the range that SAM was trained on.

    Args:
        vit: ``segment_anything.modeling.ImageEncoderViT``, the ``image_encoder`` of a SAM.
        rank: of the updates to queries and values.

    Raises:
        ValueError: at the forward, for a size that the patches do not divide, or images of other than one or three channels.
    """

    vit: Any

    def __init__(self, vit: Any, *, rank: int = 4) -> None:
        super().__init__()
        self.vit = vit.requires_grad_(False)
        for block in vit.blocks:
            block.attn.qkv = LowRankQV(block.attn.qkv, rank=rank)

    def forward(self, image: Tensor) -> Tensor:
        """Return the features (B, 256, H / 16, W / 16) of image (B, 1 or 3, H, W)."""
        if image.shape[1] not in (1, 3):
            raise ValueError(f"the image has {image.shape[1]} channels; SAM takes 3, or 1 for all three.")
        check_divisible(image.shape[2:], self.vit.patch_embed.proj.stride[0])
        x = self.vit.patch_embed(image.expand(-1, 3, -1, -1))  # (B, H / 16, W / 16, D)
        positions = self.vit.pos_embed.movedim(-1, 1)
        x = x + F.interpolate(positions, x.shape[1:3], mode="bicubic", antialias=True).movedim(1, -1)
        for block in self.vit.blocks:
            x = block(x)
        return self.vit.neck(x.movedim(-1, 1))


class SAMDecoder(nn.Module):
    """SAM's mask decoder with a dense prompt and no points, for any number of masks, all of it trainable.

    Token and hypernetwork of mask i start as those of mask i modulo 4, the masks that SAM has. What predicts the quality of a
    mask is left out: nothing here would train it.

    Args:
        sam: ``segment_anything.modeling.Sam``.
        num_masks: channels of the output, M masks of G classes each.
        scale: pixels of the image for one of the features, along each axis.
    """

    positions: Any
    transformer: Any
    upscaling: Any

    def __init__(self, sam: Any, *, num_masks: int = 8, scale: int = 16) -> None:
        super().__init__()
        self.scale = scale
        decoder, self.positions = sam.mask_decoder, sam.prompt_encoder.pe_layer
        self.transformer, self.upscaling = decoder.transformer, decoder.output_upscaling
        theirs = [i % decoder.num_mask_tokens for i in range(num_masks)]
        self.tokens = nn.Parameter(
            torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight[theirs]]).detach().clone()
        )
        self.hypernetworks = nn.ModuleList(copy.deepcopy(decoder.output_hypernetworks_mlps[i]) for i in theirs)

    def forward(self, features: Tensor, prompt: Tensor) -> Tensor:
        """Return (B, num_masks, H, W) for features (B, 256, h, w) and a prompt that is a map like them or a vector (B, 256)."""
        if prompt.ndim == 2:
            prompt = prompt[:, :, None, None]
        size = features.shape[2:]
        positions = self.positions(tuple(size)).to(features.dtype).expand(len(features), -1, -1, -1)
        tokens, x = self.transformer(features + prompt, positions, self.tokens.expand(len(features), -1, -1))
        x = self.upscaling(x.transpose(1, 2).unflatten(2, tuple(size)))  # (B, 32, 4 h, 4 w)
        weights = torch.stack([net(tokens[:, i + 1]) for i, net in enumerate(self.hypernetworks)], dim=1)
        masks = torch.einsum("bmc,bchw->bmhw", weights, x)
        return F.interpolate(masks, scale_factor=self.scale * size[0] / masks.shape[2], mode="bilinear")
