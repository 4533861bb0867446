"""PHiSeg: a hierarchy of latent maps, from the rough shape to the details."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.utils import one_hot
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.networks.phiseg_nets import GaussianLadder, LadderDecoder
from monai_flowssn.segmenters.base import StochasticSegmenter

__all__ = ["PHiSeg"]


class PHiSeg(StochasticSegmenter):
    r"""Hierarchical probabilistic segmentation (Baumgartner et al. 2019, arXiv 1906.04045).

    The latents :math:`z_1, \dots, z_L` are maps at L resolutions, each Gaussian given the next coarser one. A draw takes them
    from the prior :math:`p(z | x)`; training from the posterior :math:`q(z | x, y)`, a network of the same shape that also sees
    the annotation. With :math:`s_l` the logits that level l adds to the coarser ones, it minimises

    .. math:: \frac{1}{d} \sum_l \Big[ -\sum_i \log \mathrm{softmax}(s_l + \dots + s_L)_{i, y_i}
        + 2^{D (l - 1)} \, KL(q(z_l | x, y, z_{l+1}) \,\|\, p(z_l | x, z_{l+1})) \Big].

    The cross-entropies of l > 1 are the deep supervision; the weights, :math:`4^{l-1}` in D = 2 dimensions as in the authors'
    code, offset that a coarser map has fewer latents. The authors' objective is a sum over the d pixels. Dividing all of it by d
    is the same objective in nats per pixel, the unit of every loss in this library. The logged ``cross_entropy`` and ``kl_l``,
    which have no weights, add up to the negative evidence lower bound.

    Args:
        prior: ladder of the image.
        posterior: ladder of the image and K channels of annotation (one-hot minus 1/2), otherwise like ``prior``.
        decoder: from the latents to logits, with K outputs.
        num_classes: K, the background included.
    """

    def __init__(
        self, prior: GaussianLadder, posterior: GaussianLadder, *, decoder: LadderDecoder, num_classes: int = 2
    ) -> None:
        super().__init__(num_classes=num_classes)
        self.prior, self.posterior, self.decoder = prior, posterior, decoder

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        mask = pick_rater(masks).squeeze(1).long()  # (B, *S)
        y = one_hot(mask[:, None], self.num_classes).to(image.dtype)  # (B, K, *S)
        noise = tuple(part.squeeze(1) for part in self.draw_noise(image, 1))
        seen = self.prior(image)
        latents, q = _draw(self.posterior, self.posterior(torch.cat([image, y - 0.5], dim=1)), noise)
        _, p = self.prior.descend(seen, lambda level, _: latents[level])
        kl = [kl_divergence(*pair).sum() / mask.numel() for pair in zip(q, p)]
        entropies = [F.cross_entropy(F.interpolate(s, mask.shape[1:]), mask) for s in self._logits(latents)]
        weighted = [2 ** (level * (image.ndim - 2)) * term for level, term in enumerate(kl)]
        terms = {f"kl_{level}": term for level, term in enumerate(kl, start=1)}
        return {"loss": torch.stack(entropies + weighted).sum(), "cross_entropy": entropies[0], **terms}

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return a standard normal map (B, n, latent_channels, *S_l) for each level, the finest first."""
        sizes = [[size // stride for size in image.shape[2:]] for stride in self.prior.strides]
        channels = self.prior.latent_channels
        return tuple(torch.randn(len(image), n, channels, *size, device=image.device) for size in sizes)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the image (B, C, *S) at the levels of the latents, which themselves depend on the draw."""
        return self.prior(image)

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        latents, _ = _draw(self.prior, code, noise)
        return self._logits(latents)[0].softmax(dim=1)

    def _logits(self, latents: list[Tensor]) -> list[Tensor]:
        sums = self.decoder(latents)
        if (outputs := sums[0].shape[1]) != self.num_classes:
            raise ValueError(f"the decoder has {outputs} outputs; it needs num_classes = {self.num_classes}.")
        return sums


def _draw(
    ladder: GaussianLadder, features: Sequence[Tensor], noise: Sequence[Tensor]
) -> tuple[list[Tensor], list[Normal]]:
    return ladder.descend(features, lambda level, gaussian: gaussian.mean + gaussian.stddev * noise[level])
