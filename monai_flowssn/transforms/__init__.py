"""MONAI transforms: rater masks before the network; maps, files and panels after it."""

from monai_flowssn.transforms.answer import AnswerViewerd
from monai_flowssn.transforms.crop import CropOnRatersd, RandCropOnRatersd
from monai_flowssn.transforms.inverse import InvertDrawsd, InvertMapsd
from monai_flowssn.transforms.panel import SavePaneld, draw_panel
from monai_flowssn.transforms.raters import CheckCased, KeepRaterd, LoadCased, PadRatersd, RandDihedrald
from monai_flowssn.transforms.summary import SaveSummaryd
from monai_flowssn.transforms.uncertainty import (
    DrawsToMapsd,
    SaveMapsd,
    collect_draws,
    entropy,
    expected_entropy,
    mean_probability,
    mutual_information,
)

__all__ = [
    "AnswerViewerd",
    "CheckCased",
    "CropOnRatersd",
    "DrawsToMapsd",
    "InvertDrawsd",
    "InvertMapsd",
    "KeepRaterd",
    "LoadCased",
    "PadRatersd",
    "RandCropOnRatersd",
    "RandDihedrald",
    "SaveMapsd",
    "SavePaneld",
    "SaveSummaryd",
    "collect_draws",
    "draw_panel",
    "entropy",
    "expected_entropy",
    "mean_probability",
    "mutual_information",
]
