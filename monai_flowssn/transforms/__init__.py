"""MONAI transforms: rater masks before the network; maps, files and panels after it."""

from monai_flowssn.transforms.answer import AnswerViewerd
from monai_flowssn.transforms.checking import CheckCased
from monai_flowssn.transforms.crop import CropOnRatersd, RandCropOnRatersd
from monai_flowssn.transforms.dihedral import RandDihedrald
from monai_flowssn.transforms.intensity import ScaleOwnRanged
from monai_flowssn.transforms.inverse import InvertDrawsd, InvertMapsd
from monai_flowssn.transforms.loading import LoadCased, OneSliced
from monai_flowssn.transforms.panel import SavePaneld, draw_panel
from monai_flowssn.transforms.point import CropOnPointd, LocatePointd
from monai_flowssn.transforms.raters import KeepRaterd, PadRatersd
from monai_flowssn.transforms.saving import SaveMapsd
from monai_flowssn.transforms.summary import SaveSummaryd
from monai_flowssn.transforms.uncertainty import DrawsToMapsd, collect_draws, entropy

__all__ = [
    "AnswerViewerd",
    "CheckCased",
    "CropOnPointd",
    "CropOnRatersd",
    "DrawsToMapsd",
    "InvertDrawsd",
    "InvertMapsd",
    "KeepRaterd",
    "LoadCased",
    "LocatePointd",
    "OneSliced",
    "PadRatersd",
    "RandCropOnRatersd",
    "RandDihedrald",
    "SaveMapsd",
    "SavePaneld",
    "SaveSummaryd",
    "ScaleOwnRanged",
    "collect_draws",
    "draw_panel",
    "entropy",
]
