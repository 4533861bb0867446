"""The categorical diffusion model."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from monai.networks.utils import one_hot
from monai.utils import unsqueeze_right
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.sampling.counter import categorical, draw_keys, uniform
from monai_flowssn.segmenters.base import StochasticSegmenter

__all__ = ["CategoricalDiffusion", "cosine_schedule", "late_cosine_schedule", "log_reverse", "training_times"]


def cosine_schedule(timesteps: int) -> Tensor:
    r"""Return the share :math:`\bar\alpha_t` of pixels that keep their class up to time t, t = 0 .. T.

    :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)` with
    :math:`\beta_s = \min(1 - f(s) / f(s - 1), 0.999)`, :math:`f(s) = \cos^2(\frac{s / T + 0.008}{1.008} \frac{\pi}{2})`
    (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17).

    Args:
        timesteps: T.

    Returns:
        (T + 1,) from 1 to almost 0.
    """
    times = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    f = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    kept = (f[1:] / f[:-1]).clamp(min=0.001)
    return torch.cat([torch.ones(1), kept.cumprod(dim=0)]).float()


def late_cosine_schedule(timesteps: int) -> Tensor:
    r"""Return :func:`cosine_schedule` one step late: :math:`\bar\alpha_t = f((t - 1) / T)`, t = 1 .. T, and 1 for t = 0.

    The public code of CCDM noises by it (``cosine_schedule`` in ddpm/models/diffusion_denoising.py), f not divided by f(0); its
    reverse steps then have the betas of the schedule that is not late, where ours follow the schedule that is given.

    Args:
        timesteps: T.

    Returns:
        (T + 1,) from 1 to almost 0.
    """
    times = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)[:-1]
    f = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    return torch.cat([torch.ones(1), f]).float()


def training_times(image: Tensor, timesteps: int) -> Tensor:
    """Return times (B,), each uniform over 1 .. T, and spread over the batch: early and late ones differ much in loss."""
    b = len(image)
    places = (torch.rand(1, device=image.device) + torch.arange(b, device=image.device) / b).remainder(1)
    return (places * timesteps).long().clamp(max=timesteps - 1) + 1


def log_reverse(x_t: Tensor, log_p0: Tensor, alpha_s: Tensor, alpha_t: Tensor) -> Tensor:
    r"""Return the logarithm of :math:`\sum_c q(x_s | x_t, x_0 = c) \, p_0(c)` for any s < t, in closed form.

    With :math:`a = \bar\alpha_t / \bar\alpha_s`, Bayes' rule gives
    :math:`q(x_s | x_t, x_0) = (a x_t + \frac{1 - a}{K}) (\bar\alpha_s x_0 + \frac{1 - \bar\alpha_s}{K}) / q(x_t | x_0)`,
    whose sum over c needs no K x K matrix. A one-hot :math:`p_0` gives the posterior itself.

    Args:
        x_t: (B, K, *S) one-hot.
        log_p0: (B, K, *S) logarithm of the distribution of x_0.
        alpha_s: share kept up to s, a scalar or (B, 1, *1).
        alpha_t: the same up to t.

    Returns:
        (B, K, *S).
    """
    k, a = x_t.shape[1], alpha_t / alpha_s
    ratio = log_p0 - (alpha_t * x_t + (1 - alpha_t) / k).log()  # log p_0(c) / q(x_t | x_0 = c)
    elsewhere = ((1 - alpha_s) / k).log() + ratio.logsumexp(dim=1, keepdim=True)
    return (a * x_t + (1 - a) / k).log() + torch.logaddexp(alpha_s.log() + ratio, elsewhere)


class CategoricalDiffusion(StochasticSegmenter):
    r"""Conditional categorical diffusion model, CCDM (Zbinden et al. 2023, arXiv 2303.08888).

    Every pixel forgets its class independently: :math:`q(x_t | x_0) = \mathrm{Cat}(\bar\alpha_t x_0 + (1 - \bar\alpha_t) / K)`
    with the cosine schedule. A network that sees :math:`x_t`, the image and t predicts :math:`p_\theta(x_0 | x_t)`, and
    :math:`p_\theta(x_{t-1} | x_t) = \sum_c q(x_{t-1} | x_t, x_0 = c) p_\theta(x_0 = c | x_t)`. Training minimises

    .. math:: T \, E_{t \sim U\{1 .. T\}} \; \mathrm{KL}\big(q(x_{t-1} | x_t, x_0) \,\|\, p_\theta(x_{t-1} | x_t)\big),

    the mean over pixels: the bound of the negative log-likelihood in nats per pixel, but for a constant.

    A draw visits ``steps`` of the times from T down to 1, evenly spaced, with the same closed form for the larger strides. Within
    a stride the pixels are drawn independently given x_t, so fewer steps lose rare modes in which many pixels change together,
    whatever the network: with its exact posterior for T = 250 and 1,024 pixels that are all of one class, the other class with
    probability 0.10, draws find that one in 0.03, 0.05, 0.07 and 0.10 of the cases for 10, 25, 50 and 250 steps.

    The draw is :math:`p_\theta(x_0 | x_1)`, probabilities rather than one sample of them: their mean over draws is exact, and
    since x_1 differs from x_0 in a share of :math:`\beta_1 (K - 1) / K` of the pixels only (0.0001 at T = 250, K = 2), their
    argmax is a sample of x_0 up to that share. This is why every grid of times ends at 1.

    The noise is one random key per pixel; the uniform number of time s is a hash of the key and s
    (:mod:`monai_flowssn.sampling.counter`), because T numbers per pixel and draw would not fit in memory.

    Args:
        net: ``net(x, t) -> (B, K, *S)`` logits of x_0, any module; x is (B, K + C, *S), one-hot classes before the image, and
            t (B,) in (0, 1].
        num_classes: K, the background included.
        timesteps: T of the diffusion that is learnt.
        steps: how many of them a draw visits, at least 2; all by default.
        schedule: ``schedule(T) -> (T + 1,)``, the share of pixels that keep their class up to each time;
            :func:`late_cosine_schedule` is that of the public code.

    Raises:
        ValueError: if ``steps`` is not within 2 .. ``timesteps``, or for a network with another number of outputs.
    """

    step_network = "net"
    differentiable = False
    alpha_bar: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        num_classes: int = 2,
        timesteps: int = 250,
        steps: int | None = None,
        schedule: Callable[[int], Tensor] = cosine_schedule,
    ) -> None:
        super().__init__(num_classes=num_classes)
        steps = timesteps if steps is None else steps
        if not 2 <= steps <= timesteps:
            raise ValueError(
                f"steps is {steps}, timesteps {timesteps}; a draw visits the first and the last of the times at least, and "
                "none twice: pass 2 <= steps <= timesteps."
            )
        self.net, self.timesteps, self.steps = net, timesteps, steps
        self.register_buffer("alpha_bar", schedule(timesteps), persistent=False)

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        mask = pick_rater(masks).squeeze(1)  # (B, *S)
        x_0 = self._one_hot(mask)
        t = training_times(image, self.timesteps)
        alpha_s, alpha_t = (unsqueeze_right(self.alpha_bar[time], x_0.ndim) for time in (t - 1, t))
        noised = alpha_t * x_0 + (1 - alpha_t) / self.num_classes
        x_t = self._one_hot(categorical(noised, torch.rand(mask.shape, device=mask.device)))
        target = log_reverse(x_t, x_0.log(), alpha_s, alpha_t).exp()
        predicted = log_reverse(x_t, self._log_p0(x_t, image, t), alpha_s, alpha_t)
        kl = F.kl_div(predicted, target, reduction="none").sum(dim=1)  # (B, *S)
        return {"loss": self.timesteps * kl.mean()}

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return one key per pixel (B, n, *S), int64."""
        return (draw_keys(len(image), n, *image.shape[2:], device=image.device),)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the image itself: every step of every draw looks at it anew."""
        return (image,)

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        (image,), (keys,) = code, noise
        times = torch.linspace(self.timesteps, 1, self.steps, device="cpu").round().long().tolist()
        x_t = self._one_hot((uniform(keys, times[0]) * self.num_classes).long())
        for t, s in pairwise(times):
            log_p0 = self._log_p0(x_t, image, keys.new_full((len(image),), t))
            log_p = log_reverse(x_t, log_p0, self.alpha_bar[s], self.alpha_bar[t])
            x_t = self._one_hot(categorical(log_p.exp(), uniform(keys, s)))
        return self._log_p0(x_t, image, keys.new_ones(len(image))).exp()

    def _log_p0(self, x_t: Tensor, image: Tensor, t: Tensor) -> Tensor:
        logits = self.net(torch.cat([x_t, image], dim=1), t / self.timesteps).float()
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"the network has {logits.shape[1]} outputs; it needs num_classes = {self.num_classes}.")
        return logits.log_softmax(dim=1)

    def _one_hot(self, index: Tensor) -> Tensor:
        return one_hot(index[:, None], self.num_classes)
