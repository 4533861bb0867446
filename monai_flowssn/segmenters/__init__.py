"""Models of p(mask | image), one file per method."""

from monai_flowssn.segmenters.base import StochasticSegmenter, pick_rater
from monai_flowssn.segmenters.continuous import ContinuousFlowSSN
from monai_flowssn.segmenters.unet import DeterministicUNet

__all__ = ["ContinuousFlowSSN", "DeterministicUNet", "StochasticSegmenter", "pick_rater"]
