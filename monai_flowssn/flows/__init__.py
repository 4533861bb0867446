"""Bijections: on latent vectors, as ``torch.distributions`` transforms whose parameters a context gives, and on maps."""

from monai_flowssn.flows.autoregressive import AutoregressiveFlow
from monai_flowssn.flows.latent import GlowFlow, NICEFlow, PlanarFlow, RadialFlow

__all__ = ["AutoregressiveFlow", "GlowFlow", "NICEFlow", "PlanarFlow", "RadialFlow"]
