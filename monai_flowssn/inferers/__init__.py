"""MONAI inferers for stochastic segmenters."""

from monai_flowssn.inferers.draws import CentreDrawInferer, DrawInferer, LossInferer, WeightedDrawInferer, cpu_autocast
from monai_flowssn.inferers.maps import MapInferer
from monai_flowssn.inferers.windows import padded_size, windowed_draws

__all__ = [
    "CentreDrawInferer",
    "DrawInferer",
    "LossInferer",
    "MapInferer",
    "WeightedDrawInferer",
    "cpu_autocast",
    "padded_size",
    "windowed_draws",
]
