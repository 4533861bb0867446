"""The mixture of stochastic experts."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import identity, kron
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.annotations import rater_weights
from monai_flowssn.networks import LatentHead
from monai_flowssn.sampling.counter import categorical
from monai_flowssn.segmenters.base import StochasticSegmenter, repeat_rows

__all__ = ["MixtureOfStochasticExperts", "soft_iou_cost", "transport_plan"]


def soft_iou_cost(draws: Tensor, masks: Tensor) -> Tensor:
    """Return 1 - soft IoU of every draw with every mask, the mean over the foreground classes.

    Intersection and union are counted with one more pixel each, so that a class that both leave out costs nothing.

    Args:
        draws: (B, N, K, *S) probabilities.
        masks: (B, R, K, *S) one-hot.

    Returns:
        (B, N, R).
    """
    p, y = draws[:, :, 1:].flatten(3), masks[:, :, 1:].flatten(3)
    with torch.autocast(p.device.type, enabled=False):  # half precision cannot count pixels
        intersection = torch.einsum("bnkp,brkp->bnrk", p, y.to(p.dtype))
    union = p.sum(dim=3)[:, :, None] + y.sum(dim=3)[:, None] - intersection
    return 1 - ((intersection + 1) / (union + 1)).mean(dim=3)


@torch.no_grad()
def transport_plan(cost: Tensor, weights: Tensor, capacity: float = 1.0) -> Tensor:
    """Move the weight of each annotation to the draws at the least cost.

    Args:
        cost: (B, N, R) of a draw for an annotation.
        weights: (B, R), summing to 1 over R.
        capacity: the most that one draw may receive, at least 1 / N. With 1 every annotation goes to its nearest draw; below,
            this is a linear programme, solved exactly and for the whole batch at once by HiGHS (``scipy.optimize.linprog``).

    Returns:
        (B, N, R), not negative; the sum over N is ``weights``.
    """
    b, n, r = cost.shape
    if capacity >= 1:
        return F.one_hot(cost.argmin(dim=1), n).mT * weights[:, None]
    # a cost that is not finite has to reach the loss, not stop the solver
    objective = cost.nan_to_num().double().cpu().numpy().ravel()
    received = kron(identity(b * n), np.ones((1, r)))
    sent = kron(identity(b), kron(np.ones((1, n)), identity(r)))
    solution = linprog(
        objective,
        A_ub=received,
        b_ub=np.full(b * n, capacity),
        A_eq=sent,
        b_eq=weights.double().cpu().numpy().ravel(),
    )
    if not solution.success:
        raise RuntimeError(f"no transport plan for capacity {capacity} and {n} draws: {solution.message}")
    return torch.from_numpy(solution.x).to(cost).view(b, n, r)


class MixtureOfStochasticExperts(StochasticSegmenter):
    r"""Mixture of stochastic experts, MoSE (Gao et al. 2023, arXiv 2212.07328).

    A gate gives each of E experts a probability :math:`\pi_e(x)`. An expert is a Gaussian of latent vectors,
    :math:`z \sim N(\mu_e, \sigma_e^2)` with its own free parameters; a head turns z and the features of the image, shared by all
    experts, into a segmentation. Training draws S segmentations :math:`s_i` of every expert and minimises the relaxed optimal
    transport between them and the annotations :math:`y_j` with weights :math:`v_j`, those of all raters,

    .. math:: \sum_{ij} P_{ij} \, c(s_i, y_j) + \beta \, KL\big(P_e \,\|\, \pi_e(x)\big), \quad
        P = \arg\min_P \sum_{ij} P_{ij} \, c(s_i, y_j) \;\; \text{so that} \;\; \sum_i P_{ij} = v_j, \; \sum_j P_{ij} \le \gamma,

    where c is 1 - soft IoU and :math:`P_e` what the draws of an expert receive. No gradient passes through P, so the first term
    teaches the experts and the second the gate.

    The choices that the paper leaves open are those of its public code: gamma is below 1 at the start, so that a draw cannot take
    all annotations, and 1 later (there when the loss stalls, here after ``capacity_steps``); an expert starts with standard
    deviation 1/8. The plan is exact for every gamma, where that code is greedy. The KL is between experts: that between single
    draws differs by a term without gradient. Ours is the start of the means, a Latin hypercube over [-2, 2]: experts that start
    alike may all learn the most frequent annotation.

    Args:
        features: ``features(image) -> (B, F, *S)``, any module.
        gate: ``gate(image) -> (B, E)`` logits of the experts, any module.
        head: how z meets the features; its ``latent_dim`` is that of the experts. Without the normalisation of ``ModulatedHead``
            all draws become empty for good where many annotations are.
        num_classes: K, the background included.
        experts: E.
        samples: S, draws of each expert in training.
        beta: weight of the KL; None for 1 / (E S), that of the public code, which averages over the draws. Where a gate shares
            nothing with ``features`` it matters only through a common clipping of the gradients, under which a large one starves
            the experts.
        capacity: gamma at the start.
        capacity_steps: training steps with that gamma.

    Raises:
        ValueError: for options out of range, or a gate with another number of outputs.
    """

    steps_done: Tensor

    def __init__(
        self,
        features: nn.Module,
        gate: nn.Module,
        *,
        head: LatentHead,
        num_classes: int = 2,
        experts: int = 4,
        samples: int = 4,
        beta: float | None = None,
        capacity: float = 0.5,
        capacity_steps: int = 10_000,
    ) -> None:
        super().__init__(num_classes=num_classes)
        if experts < 1 or samples < 1 or (beta is not None and beta <= 0):
            raise ValueError(f"experts {experts}, samples {samples}, beta {beta}; pass at least 1, 1 and above 0.")
        if not capacity * experts * samples >= 1:
            raise ValueError(
                f"capacity is {capacity}, but {experts * samples} draws must be able to receive 1 together: pass at least "
                f"{1 / (experts * samples):g}, or more samples."
            )
        self.features, self.gate, self.head = features, gate, head
        self.experts, self.samples = experts, samples
        self.beta = 1 / (experts * samples) if beta is None else beta
        self.capacity, self.capacity_steps = capacity, capacity_steps
        order = torch.rand(head.latent_dim, experts).argsort(dim=1)
        self.mean = nn.Parameter(torch.linspace(-2, 2, experts)[order].T.contiguous())  # (E, L)
        self.log_deviation = nn.Parameter(torch.full((experts, head.latent_dim), math.log(1 / 8)))
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        weights = rater_weights(masks)  # (B, R)
        y = F.one_hot(masks.clamp(min=0).long(), self.num_classes).movedim(-1, 2)  # (B, R, K, *S)
        projected, log_gate = self._project(image), self._log_gate(image)
        noise = torch.randn(len(image), self.experts, self.samples, self.head.latent_dim, device=image.device)
        z = self.mean[:, None] + self.log_deviation.exp()[:, None] * noise  # (B, E, S, L)
        n = self.experts * self.samples
        draws = self._segment(repeat_rows(projected, n), z.flatten(0, 2)).unflatten(0, (-1, n))  # (B, E * S, K, *S)
        cost = soft_iou_cost(draws, y)  # (B, E * S, R)
        plan = transport_plan(cost, weights, self.capacity if self.steps_done < self.capacity_steps else 1.0)
        if self.training:
            self.steps_done += 1
        transport = (plan * cost).sum(dim=(1, 2)).mean()
        received = plan.sum(dim=2).unflatten(1, (self.experts, self.samples)).sum(dim=2)  # (B, E)
        kl = F.kl_div(log_gate, received, reduction="batchmean")
        return {"loss": transport + self.beta * kl, "transport": transport, "kl": kl}

    @torch.no_grad()
    def weighted_draws(self, image: Tensor, n: int, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw the same number of every expert, with the gate's probabilities as weights, as the paper evaluates.

        Args:
            image: (B, C, *S).
            n: number of draws N, a multiple of E.
            noise: standard normal numbers (B, N, L); drawn afresh if not given.

        Returns:
            The draws (B, N, K, *S), the experts in turn, so that the first draws of a multiple of E are such a set as well, and
            their weights (B, N), which ``monai_flowssn.metrics`` take.

        Raises:
            ValueError: for another number of draws.
        """
        if n < 1 or n % self.experts:
            raise ValueError(
                f"n is {n}, but {self.experts} experts draw equally often: give a multiple of {self.experts}."
            )
        projected, gate = self.encode(image)
        epsilon = torch.randn(len(image), n, self.head.latent_dim, device=image.device) if noise is None else noise
        experts = torch.arange(n, device=image.device) % self.experts
        z = self.mean[experts] + self.log_deviation.exp()[experts] * epsilon  # (B, N, L)
        turns = z.split(self.experts, dim=1)
        rows = repeat_rows(projected, self.experts)
        draws = [self._segment(rows, turn.flatten(0, 1)).unflatten(0, (-1, self.experts)) for turn in turns]
        return torch.cat(draws, 1), gate[:, experts] * self.experts / n

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        """Return uniform numbers (B, n), which choose the experts, and standard normal ones (B, n, L)."""
        b, device = len(image), image.device
        return torch.rand(b, n, device=device), torch.randn(b, n, self.head.latent_dim, device=device)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the projected features (B, F, *S) and the probabilities of the experts (B, E)."""
        return self._project(image), self._log_gate(image).exp()

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        projected, gate = code
        u, epsilon = noise
        expert = categorical(gate, u)  # (B,)
        return self._segment(projected, self.mean[expert] + self.log_deviation.exp()[expert] * epsilon)

    def _project(self, image: Tensor) -> Tensor:
        return self.head.project(self.features(image))

    def _segment(self, projected: Tensor, z: Tensor) -> Tensor:
        return self.head(projected, z).float().softmax(dim=1)

    def _log_gate(self, image: Tensor) -> Tensor:
        logits = self.gate(image).float()
        if logits.shape[1:] != (self.experts,):
            raise ValueError(
                f"the gate returns {tuple(logits.shape)}; it must be (B, {self.experts}), one logit per expert."
            )
        return logits.log_softmax(dim=1)
