"""Bijections: on latent vectors, as ``torch.distributions`` transforms whose parameters a context gives, and on maps."""

from monai_flowssn.flows.autoregressive import AutoregressiveFlow
from monai_flowssn.flows.latent import GlowFlow, PlanarFlow, RadialFlow

__all__ = ["AutoregressiveFlow", "GlowFlow", "PlanarFlow", "RadialFlow"]
