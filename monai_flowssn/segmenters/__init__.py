"""Models of p(mask | image), one file per method."""

from monai_flowssn.segmenters.autoregressive import AutoregressiveFlowSSN, DualFlowSSN
from monai_flowssn.segmenters.base import StochasticSegmenter
from monai_flowssn.segmenters.ccdm import CategoricalDiffusion
from monai_flowssn.segmenters.cimd import AmbiguousDiffusion
from monai_flowssn.segmenters.continuous import ContinuousFlowSSN
from monai_flowssn.segmenters.contract import check_segmenter
from monai_flowssn.segmenters.flow_matching import FlowMatching
from monai_flowssn.segmenters.informed import InformedFlowSSN
from monai_flowssn.segmenters.informed_autoregressive import InformedAutoregressiveFlowSSN
from monai_flowssn.segmenters.joint_prob_unet import JointProbabilisticUNet
from monai_flowssn.segmenters.monte_carlo import MonteCarloSegmenter
from monai_flowssn.segmenters.mose import MixtureOfStochasticExperts
from monai_flowssn.segmenters.p2sam import P2SAM, TransportedP2SAM
from monai_flowssn.segmenters.phiseg import PHiSeg
from monai_flowssn.segmenters.prob_unet import ProbabilisticUNet
from monai_flowssn.segmenters.ssn import SSN
from monai_flowssn.segmenters.unet import DeterministicUNet

__all__ = [
    "P2SAM",
    "SSN",
    "AmbiguousDiffusion",
    "AutoregressiveFlowSSN",
    "CategoricalDiffusion",
    "ContinuousFlowSSN",
    "DeterministicUNet",
    "DualFlowSSN",
    "FlowMatching",
    "InformedAutoregressiveFlowSSN",
    "InformedFlowSSN",
    "JointProbabilisticUNet",
    "MixtureOfStochasticExperts",
    "MonteCarloSegmenter",
    "PHiSeg",
    "ProbabilisticUNet",
    "StochasticSegmenter",
    "TransportedP2SAM",
    "check_segmenter",
]
