"""MONAI inferers for stochastic segmenters."""

from monai_flowssn.inferers.draws import DrawInferer, LossInferer, cpu_autocast
from monai_flowssn.inferers.windows import padded_size, windowed_draws

__all__ = ["DrawInferer", "LossInferer", "cpu_autocast", "padded_size", "windowed_draws"]
