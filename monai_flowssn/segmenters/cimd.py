"""The ambiguous diffusion model."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from monai.utils import unsqueeze_right
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.sampling.counter import draw_keys, normal
from monai_flowssn.segmenters.base import StochasticSegmenter
from monai_flowssn.segmenters.ccdm import training_times
from monai_flowssn.segmenters.flow_matching import class_probabilities, mask_channels
from monai_flowssn.segmenters.prob_unet import diagonal_gaussian

__all__ = ["AmbiguousDiffusion", "linear_schedule", "reverse_gaussian"]


def linear_schedule(timesteps: int) -> Tensor:
    r"""Return :math:`\log \bar\alpha_t`, t = 0 .. T, of a :math:`\beta` that rises linearly (Ho et al. 2020, arXiv 2006.11239).

    :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)` with :math:`\beta` from 0.1 / T to 20 / T, that is from 0.0001 to 0.02
    for the T = 1000 of that paper. The logarithm keeps the digits of :math:`1 - \bar\alpha_t` where it is small.

    Args:
        timesteps: T, above 20.

    Returns:
        (T + 1,) from 0 to about -10.
    """
    betas = torch.linspace(0.1 / timesteps, 20 / timesteps, timesteps, dtype=torch.float64)
    return torch.cat([torch.zeros(1), torch.log1p(-betas).cumsum(dim=0)]).float()


def reverse_gaussian(x_0: Tensor, x_t: Tensor, log_s: Tensor, log_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the mean of :math:`q(x_s | x_t, x_0)` for any s < t and the two ends of the range of a learnt log-variance.

    With :math:`\beta = 1 - \bar\alpha_t / \bar\alpha_s`,

    .. math:: \frac{\sqrt{\bar\alpha_s} \, \beta}{1 - \bar\alpha_t} x_0
        + \frac{\sqrt{1 - \beta} \, (1 - \bar\alpha_s)}{1 - \bar\alpha_t} x_t, \quad
        \tilde\beta = \beta \, \frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}

    are mean and variance, for s = t - 1 those of Ho et al. (2020, arXiv 2006.11239, eq. 7). A learnt log-variance lies between
    :math:`\log \tilde\beta` and :math:`\log \beta`.

    Args:
        x_0: (B, M, *S).
        x_t: (B, M, *S).
        log_s: :math:`\log \bar\alpha_s`, a scalar or (B, 1, *1).
        log_t: :math:`\log \bar\alpha_t`.

    Returns:
        The mean (B, M, *S), :math:`\log \tilde\beta`, for s = 0 that of a variance of almost 0, and :math:`\log \beta`.
    """
    beta, noise_s, noise_t = -torch.expm1(log_t - log_s), -torch.expm1(log_s), -torch.expm1(log_t)
    mean = (log_s / 2).exp() * beta / noise_t * x_0 + ((log_t - log_s) / 2).exp() * noise_s / noise_t * x_t
    return mean, beta.log() + (noise_s / noise_t).clamp(min=1e-6).log(), beta.log()


class AmbiguousDiffusion(StochasticSegmenter):
    r"""Collectively intelligent medical diffusion, CIMD (Rahman et al. 2023, arXiv 2304.04745).

    Gaussian diffusion of the mask, zeros and ones, :math:`x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t} \epsilon`. A
    network that sees :math:`x_t`, the image and t predicts the noise, :math:`\hat\epsilon`, and where the variance of a reverse
    step lies between :math:`\tilde\beta_t` and :math:`\beta_t` (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15). Beside it two
    encoders of Gaussian vectors are asked to agree, one that sees the annotation and one that sees the predicted noise. Training
    minimises, for one annotation of each image and t uniform over 1 .. T,

    .. math:: |\epsilon - \hat\epsilon|^2 + L_{vlb} + \beta \, KL\big(q(z | x, y) \,\|\, p(z | x, \hat\epsilon)\big),

    the first two per element of the mask, L_vlb in bits. L_vlb, the KL of the reverse step, teaches the variance alone: no
    gradient passes through its mean. Draws use neither encoder, so that with ``beta`` = 0 this is ordinary diffusion, trained on
    the same random numbers.

    Draws are those of DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12 with sigma = 0), whose only noise is :math:`x_T`; they
    visit ``steps`` of the times from T down to 1, evenly spaced. ``ancestral`` is the published way, with new noise of the
    learnt variance at every step, and all 1000 of them. The draw is the last prediction of x_0; every one is clipped to [0, 1],
    in the public code to [-1, 1], although masks are not negative.

    Args:
        net: ``net(x, t) -> (B, 2M, *S)``, the noise and the place of the variance, any module; x is (B, M + C, *S), the noised
            mask before the image, and t (B,) in (0, 1]. M is 1, the foreground, for two classes, else K, one-hot.
        prior: ``prior(predicted noise and image (B, M + C, *S)) -> (B, 2L)``, mean and log standard deviation.
        posterior: ``posterior(mask and image (B, M + C, *S)) -> (B, 2L)``.
        num_classes: K, the background included.
        timesteps: T of the diffusion that is learnt.
        steps: how many of them a draw visits; all by default.
        ancestral: whether a step of a draw adds noise.
        beta: weight of the KL between the encoders.
        train_encoders: false freezes them at their random start, as in the public code, whose optimiser never gets them.

    Raises:
        ValueError: for options out of range, or a network with another number of outputs.
    """

    step_network = "net"
    log_alpha: Tensor

    def __init__(
        self,
        net: nn.Module,
        prior: nn.Module,
        *,
        posterior: nn.Module,
        num_classes: int = 2,
        timesteps: int = 1000,
        steps: int | None = None,
        ancestral: bool = False,
        beta: float = 0.001,
        train_encoders: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes)
        steps = timesteps if steps is None else steps
        if timesteps <= 20 or not 2 <= steps <= timesteps:
            raise ValueError(
                f"timesteps is {timesteps}, steps {steps}; the schedule needs more than 20 times, and a draw visits the first "
                "and the last of them at least, and none twice: pass timesteps > 20 and 2 <= steps <= timesteps."
            )
        if beta < 0:
            raise ValueError(f"beta is {beta}; the weight of the KL is at least 0.")
        self.net, self.prior, self.posterior = net, prior, posterior
        self.timesteps, self.steps, self.ancestral, self.beta = timesteps, steps, ancestral, beta
        self.channels = 1 if num_classes == 2 else num_classes
        if not train_encoders:
            prior.requires_grad_(False)
            posterior.requires_grad_(False)
        self.register_buffer("log_alpha", linear_schedule(timesteps), persistent=False)

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        x_0 = mask_channels(pick_rater(masks).squeeze(1), self.num_classes)  # (B, M, *S)
        t, noise = training_times(image, self.timesteps), torch.randn_like(x_0)
        log_s, log_t = (unsqueeze_right(self.log_alpha[time], x_0.ndim) for time in (t - 1, t))
        x_t = (log_t / 2).exp() * x_0 + (-torch.expm1(log_t)).sqrt() * noise
        predicted, place = self._predict(x_t, image, t)
        simple = F.mse_loss(predicted, noise)

        mean, low, high = reverse_gaussian(x_0, x_t, log_s, log_t)
        guess, _, _ = reverse_gaussian(_clean(x_t, predicted.detach(), log_t), x_t, log_s, log_t)
        log_variance = torch.lerp(low, high, place)
        square = (low.exp() + (mean - guess).square()) * (-log_variance).exp()
        bits = (log_variance - low + square - 1) / (2 * math.log(2))
        vlb = (bits * unsqueeze_right(t > 1, bits.ndim)).mean()  # the step to x_0 has no noise and no variance to learn

        q = diagonal_gaussian(self.posterior(torch.cat([x_0, image], dim=1)).float())
        p = diagonal_gaussian(self.prior(torch.cat([predicted, image], dim=1)).float())
        kl = kl_divergence(q, p).mean()
        return {"loss": simple + vlb + self.beta * kl, "simple": simple, "vlb": vlb, "kl": kl}

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return the start (B, n, M, *S); for ancestral draws one key for each of its elements, of which all noise is made."""
        size = (len(image), n, self.channels, *image.shape[2:])
        if self.ancestral:
            return (draw_keys(*size, device=image.device),)
        return (torch.randn(size, device=image.device),)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the image itself: every step of every draw looks at it anew."""
        return (image,)

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        (image,), (start,) = code, noise
        times = torch.linspace(self.timesteps, 1, self.steps, device="cpu").round().long().tolist()
        x_t = normal(start, times[0]) if self.ancestral else start
        for t, s in pairwise(times):
            log_s, log_t = self.log_alpha[s], self.log_alpha[t]
            x_0, place = self._predict_clean(x_t, image, t)
            if self.ancestral:
                mean, low, high = reverse_gaussian(x_0, x_t, log_s, log_t)
                x_t = mean + (torch.lerp(low, high, place) / 2).exp() * normal(start, s)
            else:
                share = (torch.expm1(log_s) / torch.expm1(log_t)).sqrt()
                x_t = (log_s / 2).exp() * x_0 + share * (x_t - (log_t / 2).exp() * x_0)
        return class_probabilities(self._predict_clean(x_t, image, times[-1])[0])

    def _predict(self, x_t: Tensor, image: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted noise (B, M, *S) and the place of the variance: 0 the lower end of its range, 1 the upper."""
        out = self.net(torch.cat([x_t, image], dim=1), t / self.timesteps).float()
        if out.shape[1] != 2 * self.channels:
            raise ValueError(
                f"the network has {out.shape[1]} outputs; {self.num_classes} classes need {2 * self.channels}."
            )
        noise, place = out.chunk(2, dim=1)
        return noise, (place + 1) / 2

    def _predict_clean(self, x_t: Tensor, image: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Return the prediction of x_0 (B, M, *S) in [0, 1] and the place of the variance."""
        noise, place = self._predict(x_t, image, image.new_full((len(image),), t, dtype=torch.long))
        return _clean(x_t, noise, self.log_alpha[t]).clamp(0, 1), place


def _clean(x_t: Tensor, noise: Tensor, log_t: Tensor) -> Tensor:
    """Return the x_0 that noise (B, M, *S) made to x_t (B, M, *S)."""
    return (-log_t / 2).exp() * (x_t - (-torch.expm1(log_t)).sqrt() * noise)
