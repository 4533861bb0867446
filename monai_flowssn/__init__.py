"""Stochastic medical image segmentation: models of p(mask | image) learnt from several experts, as MONAI bundles.

Axis letters used everywhere: ``B`` batch, ``C`` image channels, ``K`` classes, ``R`` raters, ``N`` draws,
``*S`` spatial axes (2-D or 3-D).
"""

__version__ = "0.1.0"
