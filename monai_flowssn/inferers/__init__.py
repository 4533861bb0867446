"""MONAI inferers for stochastic segmenters."""

from monai_flowssn.inferers.draws import DrawInferer, LossInferer, cpu_autocast

__all__ = ["DrawInferer", "LossInferer", "cpu_autocast"]
