"""Networks that segmenters are built from."""

from monai_flowssn.networks.dense_nets import JointDecoder, VectorLadder
from monai_flowssn.networks.latent_head import LatentHead, ModulatedHead
from monai_flowssn.networks.made import ConstantMaps, MaskedLinear
from monai_flowssn.networks.phiseg_nets import GaussianLadder, LadderDecoder
from monai_flowssn.networks.plain_unet import GaussianEncoder, PlainUNet
from monai_flowssn.networks.prompt_decoder import PromptDecoder
from monai_flowssn.networks.sam import SAMDecoder, SAMEncoder
from monai_flowssn.networks.strip_transformer import StripTransformer
from monai_flowssn.networks.unet import StreamlinedUNet

__all__ = [
    "ConstantMaps",
    "GaussianEncoder",
    "GaussianLadder",
    "JointDecoder",
    "LadderDecoder",
    "LatentHead",
    "MaskedLinear",
    "ModulatedHead",
    "PlainUNet",
    "PromptDecoder",
    "SAMDecoder",
    "SAMEncoder",
    "StreamlinedUNet",
    "StripTransformer",
    "VectorLadder",
]
