"""Networks that segmenters are built from."""

from monai_flowssn.networks.unet import StreamlinedUNet

__all__ = ["StreamlinedUNet"]
