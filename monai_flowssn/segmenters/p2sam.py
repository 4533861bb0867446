"""P2SAM: a segmentation network that takes prompts, with a distribution of prompts for each image."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.utils import one_hot
from monai.utils import unsqueeze_right
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.annotations import MISSING, pick_rater, rater_weights
from monai_flowssn.segmenters.base import StochasticSegmenter, repeat_rows
from monai_flowssn.segmenters.mose import transport_plan
from monai_flowssn.segmenters.prob_unet import diagonal_gaussian

__all__ = ["P2SAM", "TransportedP2SAM", "prompt_losses"]


def prompt_losses(logits: Tensor, masks: Tensor) -> Tensor:
    r"""Return the loss of every draw with every mask: cross-entropy, plus focal loss, plus 1 - soft Dice.

    The focal loss is :math:`\alpha (1 - p_y)^2` times the cross-entropy of a pixel, :math:`\alpha` = 1/4 where y is foreground
    and 3/4 where not (Lin et al. 2017, arXiv 1708.02002); both are means over pixels. Dice is the mean over the foreground
    classes, with one in 64 of the image's pixels added to numerator and denominator. In SAM's code it is one pixel: an empty
    annotation then pulls at the pixels of an almost empty draw some thirty times as strongly as one of 64 pixels, which favours
    empty draws; the public code, which leaves empty annotations out, does not meet it.

    Args:
        logits: (B, N, K, *S).
        masks: (B, R, K, *S) one-hot.

    Returns:
        (B, N, R).
    """
    logits, masks = logits.flatten(3), masks.flatten(3)
    with torch.autocast(logits.device.type, enabled=False):  # half precision cannot count pixels
        log_p, y = logits.float().log_softmax(dim=2), masks.float()
        p = log_p.exp()
        alpha = torch.full_like(p[0, 0], 0.25)  # (K, d)
        alpha[0] = 0.75
        pixel = -log_p * (1 + alpha * (1 - p).square())
        cross = torch.einsum("bnkp,brkp->bnr", pixel, y) / y.shape[3]
        overlap = torch.einsum("bnkp,brkp->bnrk", p[:, :, 1:], y[:, :, 1:])
        size = p[:, :, 1:].sum(dim=3)[:, :, None] + y[:, :, 1:].sum(dim=3)[:, None]
        more = y.shape[3] / 64
        return cross + 1 - ((2 * overlap + more) / (size + more)).mean(dim=3)


class P2SAM(StochasticSegmenter):
    r"""Probabilistically prompted segmentation, P2SAM (Huang et al. 2024, doi 10.1145/3664647.3680628).

    The mask that SAM draws depends on its prompt (Kirillov et al. 2023, arXiv 2304.02643). Here a prompt is a function of a
    Gaussian vector of the image, :math:`z \sim N(\mu(x), \sigma^2(x))`, that is added to the features of the image before a light
    decoder. The decoder returns M masks, as SAM does, and the draw is the softmax of :math:`\sum_m v_m s_m`, their logits with
    weights that sum to 1, learnt and the same for all images.

    Training minimises :func:`prompt_losses` of one draw with one annotation of each image. Nothing in it rewards draws that
    differ: with z independent of the annotation, the best draw is the same for every z. In the public code draws stay apart
    because that stage of training is short, has a learning rate of 1e-6 and leaves the decoder as it is, and because the
    published evaluation takes its draws from four checkpoints. :class:`TransportedP2SAM` has an objective that spreads them.

    Other differences to the public code: everything is trained at once, not first encoder, decoder and v without z, then prior
    and prompts; the cross-entropy is that of the combined logits, there of the M masks as if they were classes, which contradicts
    that their sum is the foreground.

    Args:
        encoder: ``encoder(image) -> features``, any module.
        decoder: ``decoder(features, prompt) -> (B, M * G, *S)``, logits of M masks; G is 1, the foreground, for two classes, else
            K.
        prior: ``prior(image) -> (B, 2L)``, mean and log standard deviation of z.
        latent_dim: L.
        prompt: ``prompt(z) -> (B, ...)``, what the decoder takes, for z (B, L).
        num_classes: K, the background included.
        num_masks: M, at least 2.
        skip_empty: whether training leaves out empty annotations of an image that has others, as the public code does. Draws are
            then rarely empty.

    Raises:
        ValueError: for options out of range, or a decoder with another number of outputs.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        prior: nn.Module,
        latent_dim: int,
        prompt: nn.Module,
        num_classes: int = 2,
        num_masks: int = 8,
        skip_empty: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes)
        if num_masks < 2:
            raise ValueError(f"num_masks is {num_masks}; masks that are combined are at least two: pass 2 or more.")
        self.encoder, self.decoder, self.prior, self.prompt = encoder, decoder, prior, prompt
        self.latent_dim, self.num_masks, self.skip_empty = latent_dim, num_masks, skip_empty
        self.free_weights = nn.Parameter(torch.full((num_masks - 1,), 1 / num_masks))  # the first is 1 less their sum

    @property
    def mask_weights(self) -> Tensor:
        """The weights v (M,) of the masks, which sum to 1."""
        return torch.cat([1 - self.free_weights.sum(dim=0, keepdim=True), self.free_weights])

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        y = one_hot(pick_rater(self.used(masks)), self.num_classes)  # (B, K, *S)
        logits = self.logits(self.encode(image), self.draw_noise(image, 1)[0].squeeze(1))
        return {"loss": prompt_losses(logits[:, None], y[:, None]).mean()}

    def used(self, masks: Tensor) -> Tensor:
        """Return the masks (B, R, *S) of training: with ``skip_empty``, -1 for empty ones of a case that has others."""
        if not self.skip_empty:
            return masks
        marked = masks.flatten(2).amax(dim=2) > 0  # (B, R)
        left_out = (marked.any(dim=1, keepdim=True) & ~marked)[(...,) + (None,) * (masks.ndim - 2)]
        return masks.masked_fill(left_out, MISSING)

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        return (torch.randn(len(image), n, self.latent_dim, device=image.device),)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features and mean and standard deviation (B, L) of z."""
        parameters = self.prior(image).float()
        if parameters.shape[1] != 2 * self.latent_dim:
            raise ValueError(
                f"the prior has {parameters.shape[1]} outputs; it needs 2 * latent_dim = {2 * self.latent_dim}."
            )
        z = diagonal_gaussian(parameters)
        return self.encoder(image), z.mean, z.stddev

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        return self.logits(code, noise[0]).softmax(dim=1)

    def logits(self, code: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        """Return the combined logits (B, K, *S) for what ``encode`` returns, tensors (B, ...), and noise (B, L)."""
        features, mean, deviation = code
        out = self.decoder(features, self.prompt(mean + deviation * noise)).float()
        channels = 1 if self.num_classes == 2 else self.num_classes
        if out.shape[1] != self.num_masks * channels:
            raise ValueError(
                f"the decoder has {out.shape[1]} outputs; {self.num_masks} masks of {self.num_classes} classes need "
                f"{self.num_masks * channels}."
            )
        masks = out.unflatten(1, (self.num_masks, channels))  # (B, M, G, *S)
        logits = (unsqueeze_right(self.mask_weights, masks[0].ndim) * masks).sum(dim=1)
        return logits if channels > 1 else torch.cat([torch.zeros_like(logits), logits], dim=1)


class TransportedP2SAM(P2SAM):
    r"""P2SAM whose draws are matched with all annotations at once: ours, after the mixture of stochastic experts.

    Training takes S draws of every image and minimises the optimal transport between them and the annotations,

    .. math:: \sum_{ij} P_{ij} \, c(s_i, y_j), \quad P = \arg\min_P \sum_{ij} P_{ij} \, c(s_i, y_j) \;\;
        \text{so that} \;\; \sum_i P_{ij} = v_j, \; \sum_j P_{ij} = 1 / S,

    where c is :func:`prompt_losses` and :math:`v_j` the weight of an annotation (Gao et al. 2023, arXiv 2212.07328, but with
    equal weights of the draws, which have no gate). No gradient passes through P. Draws that are all alike have to answer for
    every annotation; draws that differ as the raters do, each for one.

    Args:
        encoder: as of ``P2SAM``.
        decoder: as of ``P2SAM``.
        samples: S, at least 2.
        options: the others of ``P2SAM``.

    Raises:
        ValueError: for options out of range.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, samples: int = 8, **options: Any) -> None:
        super().__init__(encoder, decoder, **options)
        if samples < 2:
            raise ValueError(f"samples is {samples}; draws that are to differ are at least two: pass 2 or more.")
        self.samples = samples

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        masks = self.used(masks)
        weights = rater_weights(masks)  # (B, R)
        y = F.one_hot(masks.clamp(min=0).long(), self.num_classes).movedim(-1, 2)  # (B, R, K, *S)
        (noise,) = self.draw_noise(image, self.samples)
        code = tuple(repeat_rows(part, self.samples) for part in self.encode(image))
        losses = prompt_losses(self.logits(code, noise.flatten(0, 1)).unflatten(0, noise.shape[:2]), y)  # (B, S, R)
        plan = transport_plan(losses, weights, 1.001 / self.samples)  # room for the rounding of the weights
        return {"loss": (plan * losses).sum(dim=(1, 2)).mean()}
