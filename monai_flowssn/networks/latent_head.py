"""How a latent vector meets a feature map."""

from __future__ import annotations

from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LatentHead", "ModulatedHead"]


class LatentHead(nn.Module):
    """Tile a latent vector over the image, concatenate it to the features and apply 1x1 convolutions with ReLU.

    As in the Probabilistic U-Net (Kohl et al. 2018, arXiv 1806.05034, sec. 2), arranged so that nothing is tiled: the first layer
    is a sum of a part of the features, ``project``, computed once per image, and a part of the latent vector.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the features.
        latent_dim: L.
        out_channels: channels of the output.
        width: channels between the layers.
        layers: number of 1x1 convolutions, at least 2.
        norm: MONAI's normalisation between the layers, or None.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        latent_dim: int,
        out_channels: int,
        *,
        width: int,
        layers: int = 4,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers is {layers}; the latent vector needs a nonlinearity after it: pass 2 or more.")
        self.latent_dim = latent_dim
        self.project = Convolution(spatial_dims, in_channels, width, kernel_size=1, conv_only=True)
        self.latent = nn.Linear(latent_dim, width, bias=False)
        between = [
            Convolution(spatial_dims, width, width, kernel_size=1, act="relu", norm=norm, bias=norm is None)
            for _ in range(layers - 2)
        ]
        self.layers = nn.Sequential(
            *between, Convolution(spatial_dims, width, out_channels, kernel_size=1, conv_only=True)
        )

    def forward(self, projected: Tensor, z: Tensor) -> Tensor:
        """Return (B, out_channels, *S) for ``project(features)`` (B, width, *S) and z (B, L)."""
        z = self.latent(z)[(...,) + (None,) * (projected.ndim - 2)]  # (B, width, 1, ...)
        return self.layers(F.relu(projected + z))


class ModulatedHead(LatentHead):
    """Shift and scale the projected features by a latent vector, then 1x1 convolutions with batch normalisation and ReLU.

    As in the public code of the mixture of stochastic experts (Gao et al. 2023, arXiv 2212.07328), but scaled about 1: about 0,
    as there, a latent vector of 0 would hide the image. The normalisation is over the draws too, which keeps them
    from all becoming empty.

    Args: those of ``LatentHead`` without ``norm``; at least 3 ``layers``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        latent_dim: int,
        out_channels: int,
        *,
        width: int,
        layers: int = 5,
    ) -> None:
        if layers < 3:
            raise ValueError(
                f"layers is {layers}; one between the latent vector and the output is needed: pass 3 or more."
            )
        super().__init__(spatial_dims, in_channels, latent_dim, out_channels, width=width, layers=layers, norm="batch")
        self.latent = nn.Linear(latent_dim, 2 * width)
        nn.init.xavier_uniform_(self.latent.weight)
        nn.init.zeros_(self.latent.bias)

    def forward(self, projected: Tensor, z: Tensor) -> Tensor:
        """Return (B, out_channels, *S) for ``project(features)`` (B, width, *S) and z (B, L)."""
        shift, scale = self.latent(z)[(...,) + (None,) * (projected.ndim - 2)].chunk(2, dim=1)  # (B, width, 1, ...)
        return self.layers((projected + shift) * (1 + scale))
