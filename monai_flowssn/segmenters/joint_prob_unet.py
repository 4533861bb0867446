"""The Joint Probabilistic U-Net: latent vectors of several levels that explain the image and its mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.utils import one_hot
from torch import Tensor, nn
from torch.distributions import TransformedDistribution
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.flows import NICEFlow
from monai_flowssn.networks.dense_nets import JointDecoder, VectorLadder
from monai_flowssn.segmenters.base import StochasticSegmenter
from monai_flowssn.segmenters.prob_unet import diagonal_gaussian

__all__ = ["JointProbabilisticUNet"]


class JointProbabilisticUNet(StochasticSegmenter):
    r"""Joint Probabilistic U-Net (Zhang et al. 2022, doi 10.1145/3503161.3548115).

    A hierarchy of latent vectors :math:`z_1, \dots, z_L`, from which one decoder makes the image again and another, with the
    features of the first and of the image, the mask. An invertible flow at every level makes both the prior and the posterior
    other than Gaussian: the posterior's turns a Gaussian vector into z, the prior's turns z into a Gaussian vector. Training
    minimises, in nats per pixel and with the posterior's z,

    .. math:: \frac{1}{d} \Big[ \lambda |x - \hat x|_1 - \sum_i \log p(y_i | z, x)
        + \frac{\beta}{L} \sum_l \log \frac{q(z_l | x, y, z_{l+1})}{p(z_l | x, z_{l+1})} \Big],

    which for :math:`\lambda = 1` and :math:`\beta = L` is the negative evidence lower bound of the mask and, but for a constant,
    of an image with Laplace noise of scale 1. So each z is drawn once, and the prior is conditioned on the posterior's z. In the
    public code the prior walks down its own draws in training, and every z is drawn a second time for the decoders, which leaves
    no bound. Other differences: its penalty on the norms of the weights (1e-5, nothing beside a sum over pixels) is left to the
    weight decay of the optimiser, and the scales of the flows begin at 1, not at random.

    Args:
        prior: ladder of the image.
        posterior: ladder of the image and K channels of annotation, otherwise like ``prior``.
        decoder: from the latents to the image and K logits.
        num_classes: K, the background included.
        beta: weight of the mean of the levels' KL, at least 0.
        image_weight: lambda; with 1/2, intensities from -1 to 1 weigh as the public code's from 0 to 1.
        flow_steps: couplings of each flow.
        flow_hidden: width of their networks.
        independent_levels: whether draws take the vectors of all levels independently, given what the prior says along the walk
            through its means. Like the public code, but that its walk is one random draw for all draws of an image.

    Raises:
        ValueError: for options out of range, or ladders that do not fit each other.
    """

    def __init__(
        self,
        prior: VectorLadder,
        posterior: VectorLadder,
        *,
        decoder: JointDecoder,
        num_classes: int = 2,
        beta: float = 10.0,
        image_weight: float = 0.5,
        flow_steps: int = 4,
        flow_hidden: int = 30,
        independent_levels: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes)
        if beta < 0 or image_weight < 0:
            raise ValueError(f"beta is {beta}, image_weight {image_weight}; both weights are at least 0.")
        shapes = [(ladder.levels, ladder.latent_dim) for ladder in (prior, posterior)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"(levels, latent_dim) are {shapes[0]} in the prior, {shapes[1]} in the posterior: pass the same."
            )
        self.prior, self.posterior, self.decoder = prior, posterior, decoder
        self.beta, self.image_weight, self.independent_levels = beta, image_weight, independent_levels

        def flows() -> nn.ModuleList:
            return nn.ModuleList(
                NICEFlow(prior.latent_dim, steps=flow_steps, hidden=flow_hidden) for _ in range(prior.levels)
            )

        self.prior_flows, self.posterior_flows = flows(), flows()

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        mask = pick_rater(masks).squeeze(1).long()  # (B, *S)
        y = one_hot(mask[:, None], self.num_classes).to(image.dtype)  # (B, K, *S)
        noise = tuple(part.squeeze(1) for part in self.draw_noise(image, 1))
        features, seen_by_q = self.prior(image), self.posterior(torch.cat([image, y], dim=1))
        latents, q = self.posterior.descend(
            seen_by_q, self.posterior_distribution, lambda level, each: _push(each, noise[level])
        )
        _, p = self.prior.descend(features, self.prior_distribution, lambda level, _: latents[level])
        with torch.autocast(image.device.type, enabled=False):  # densities need the precision, and cost nothing
            kl = torch.stack([(a.log_prob(z) - b.log_prob(z)).mean() for z, a, b in zip(latents, q, p)])  # (L,)
        rebuilt, logits = self._decode(latents, features)
        cross_entropy = F.cross_entropy(logits, mask)
        difference = (rebuilt - image).abs().sum(dim=1).mean()
        loss = cross_entropy + self.image_weight * difference + self.beta * kl.mean() / mask[0].numel()
        return {"loss": loss, "cross_entropy": cross_entropy, "image": difference, "kl": kl.sum()}

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return a standard normal vector (B, n, latent_dim) for each level, the finest first."""
        size = (len(image), n, self.prior.latent_dim)
        return tuple(torch.randn(size, device=image.device) for _ in range(self.prior.levels))

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the image (B, C, *S); the latents themselves depend on the draw."""
        return self.prior(image)

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        latents, p = self.prior.descend(
            code,
            self.prior_distribution,
            lambda level, each: _push(
                each, torch.zeros_like(noise[level]) if self.independent_levels else noise[level]
            ),
        )
        if self.independent_levels:
            latents = [_push(each, part) for each, part in zip(p, noise)]
        return self._decode(latents, code)[1].softmax(dim=1)

    def prior_distribution(self, level: int, parameters: Tensor) -> TransformedDistribution:
        """Return p(z_l | x, z_{l+1}) for the parameters (B, 2L) of its Gaussian; level 0 is the finest."""
        transforms = [transform.inv for transform in reversed(self.prior_flows[level]())]
        return TransformedDistribution(diagonal_gaussian(parameters.float()), transforms, validate_args=False)

    def posterior_distribution(self, level: int, parameters: Tensor) -> TransformedDistribution:
        """Return q(z_l | x, y, z_{l+1}) for its parameters (B, 2L), as :meth:`prior_distribution`."""
        transforms = self.posterior_flows[level]()
        return TransformedDistribution(diagonal_gaussian(parameters.float()), transforms, validate_args=False)

    def _decode(self, latents: list[Tensor], features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        image, logits = self.decoder(latents, features)
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"the decoder has {logits.shape[1]} outputs; it needs num_classes = {self.num_classes}.")
        return image.float(), logits.float()


def _push(distribution: TransformedDistribution, noise: Tensor) -> Tensor:
    """Return the draw (B, L) of a transformed Gaussian that standard normal noise (B, L) becomes."""
    base = distribution.base_dist
    z = base.mean + base.stddev * noise
    with torch.autocast(noise.device.type, enabled=False):
        for transform in distribution.transforms:
            z = transform(z)
    return z
