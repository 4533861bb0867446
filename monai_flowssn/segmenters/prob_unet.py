"""The Probabilistic U-Net, also with a flow on its posterior: NF-PUNet and cFlow Net."""

from __future__ import annotations

import torch
from monai.networks.utils import one_hot
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution, kl_divergence
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.networks import LatentHead
from monai_flowssn.segmenters.base import StochasticSegmenter

__all__ = ["ProbabilisticUNet", "diagonal_gaussian"]


class ProbabilisticUNet(StochasticSegmenter):
    r"""Conditional variational autoencoder of segmentations (Kohl et al. 2018, arXiv 1806.05034).

    A vector z of the prior p(z|x) joins the last features of a U-Net; in training it comes from a posterior q(z|x,y) that sees
    the annotation. The loss is the negative evidence lower bound in nats per pixel,

    .. math:: \frac{1}{d} \Big[ -E_q \sum_i \log p(y_i | z, x) + \beta \, KL(q || p) \Big],

    that is beta for a sum over pixels as in the papers, whatever the size of the image.

    With a ``flow`` on the posterior (Rezende & Mohamed 2015, arXiv 1505.05770) it is NF-PUNet (Valiuddin et al. 2021,
    arXiv 2108.02155: planar, radial) or cFlow Net (Selvan et al. 2020, arXiv 2006.02683: planar, Glow); the KL is then one
    Monte Carlo sample, :math:`\log q_0(z_0) - \sum_k \log |\det J_k| - \log p(z_K)`. Draws use the prior, which has no flow.

    Args:
        features: ``features(image) -> (B, F, *S)``, any module.
        prior: ``prior(image) -> (B, 2L)``, mean and log standard deviation.
        posterior: ``posterior(image and one-hot mask (B, C + K, *S)) -> (B, 2L)``, or (B, 2L + context) with a flow.
        head: how z meets the features.
        num_classes: K, the background included.
        beta: weight of the KL: 1 in the papers, 10 in the public code of NF-PUNet, which sums over pixels as well.
        flow: ``flow(context) -> transforms`` of z, such as :class:`~monai_flowssn.flows.PlanarFlow`.

    Raises:
        ValueError: for a negative beta, or if the posterior gives no context for the flow.
    """

    def __init__(
        self,
        features: nn.Module,
        prior: nn.Module,
        *,
        posterior: nn.Module,
        head: LatentHead,
        num_classes: int = 2,
        beta: float = 1.0,
        flow: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes)
        if beta < 0:
            raise ValueError(f"beta is {beta}; the weight of the KL is at least 0.")
        self.features, self.prior, self.posterior, self.head, self.flow = features, prior, posterior, head, flow
        self.beta = beta

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        mask = pick_rater(masks).squeeze(1).long()  # (B, *S)
        prior, posterior = self.prior_distribution(image), self.posterior_distribution(image, mask)
        with torch.autocast(image.device.type, enabled=False):  # densities need the precision, and cost nothing
            z = posterior.rsample()  # (B, L)
            kl = _kl(posterior, prior, z).mean()  # nats per image
        reconstruction = F.cross_entropy(self.head(self.head.project(self.features(image)), z).float(), mask)
        return {"loss": reconstruction + self.beta * kl / mask[0].numel(), "reconstruction": reconstruction, "kl": kl}

    def prior_distribution(self, image: Tensor) -> Independent:
        """Return p(z | x) for image (B, C, *S)."""
        return diagonal_gaussian(self.prior(image).float())

    def posterior_distribution(self, image: Tensor, mask: Tensor) -> Distribution:
        """Return q(z | x, y) for image (B, C, *S) and mask (B, *S)."""
        y = one_hot(mask[:, None], self.num_classes).to(image.dtype)  # (B, K, *S)
        out = self.posterior(torch.cat([image, y], dim=1)).float()
        if self.flow is None:
            return diagonal_gaussian(out)
        latent = 2 * self.head.latent_dim
        if out.shape[1] <= latent:
            raise ValueError(
                f"the posterior has {out.shape[1]} outputs; a flow needs context beyond the {latent} of q."
            )
        with torch.autocast(image.device.type, enabled=False):
            transforms = self.flow(out[:, latent:])
        return TransformedDistribution(diagonal_gaussian(out[:, :latent]), transforms, validate_args=False)

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        return (torch.randn(len(image), n, self.head.latent_dim, device=image.device),)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the projected features (B, F, *S) and mean and standard deviation (B, L) of the prior."""
        prior = self.prior_distribution(image)
        return self.head.project(self.features(image)), prior.mean, prior.stddev

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        projected, mean, deviation = code
        return self.head(projected, mean + deviation * noise[0]).float().softmax(dim=1)


def diagonal_gaussian(parameters: Tensor) -> Independent:
    """Return N(mean, diag) for mean and log standard deviation (B, 2L), which is clamped: its overflow is a known failure."""
    mean, log_deviation = parameters.chunk(2, dim=1)
    return Independent(Normal(mean, log_deviation.clamp(-10, 10).exp(), validate_args=False), 1, validate_args=False)


def _kl(posterior: Distribution, prior: Independent, z: Tensor) -> Tensor:
    """Return KL(q || p) (B,): exact between Gaussians, else its sample at z (B, L) ~ q."""
    if isinstance(posterior, Independent):
        return kl_divergence(posterior, prior)
    return posterior.log_prob(z) - prior.log_prob(z)
