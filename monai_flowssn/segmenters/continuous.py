"""The continuous-time Flow-SSN."""

from __future__ import annotations

from typing import Literal

import torch
from monai.networks.utils import one_hot
from monai.utils import unsqueeze_right
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.options import check_option
from monai_flowssn.sampling import SOLVERS, VELOCITIES, solver_grid
from monai_flowssn.segmenters.base import StochasticSegmenter, repeat_rows
from monai_flowssn.segmenters.gaussian_base import gaussian_base

__all__ = ["ContinuousFlowSSN"]


class ContinuousFlowSSN(StochasticSegmenter):
    r"""Flow stochastic segmentation network in continuous time (De Sousa Ribeiro et al. 2025, arXiv 2507.18838, sec. 5.2).

    A large network gives the base, :math:`u | x \sim N(\mu(x), \sigma^2 I)`, once per image. A small one, :math:`\eta`,
    carries u to a segmentation along an ordinary differential equation. With :math:`y` a one-hot annotation,
    :math:`t \sim U(0, 1)` and :math:`y_t = (1 - t) u + t y`, training minimises the pixel mean of
    :math:`-\log \mathrm{softmax}(\eta(y_t, t))_y`. Sampling integrates from :math:`y_0 = u` to
    :math:`t = 1` along one of two velocities of the same trained network:

    * ``"markov"``: :math:`(\mathrm{softmax}(\eta) - y_t) / (1 - t)`, which carries the bases of all images together to all their
      masks exactly; those of one image to its own masks as far as :math:`y_t` tells the flow which image it is
      (:class:`InformedFlowSSN` tells it);
    * ``"path"``: :math:`\mathrm{softmax}(\eta) - u` with u the start of the trajectory, as the authors' code does. It takes u for
      :math:`E[u | y_t]`, so it is biased towards the frequent modes, more so the rarer a mode is.

    Args:
        base: ``base(image) -> (B, K or 2K, *S)``, any module; 2K outputs are the mean and the log standard deviation of the base.
            ``None`` is the fixed prior N(0, base_std^2 I); the flow is then conditioned on the image.
        flow: ``flow(y, t) -> (B, K, *S)`` logits, any module; y has K channels, and C more without a base (the image).
        num_classes: K, the background included.
        base_std: standard deviation of the base where ``base`` does not give it.
        velocity: which of the two velocities ``sample`` integrates.
        solver: scheme of the integration; ``"dopri5"`` is adaptive and ignores ``steps`` and ``grid_power``.
        steps: number of steps T of the fixed-grid solvers.
        grid_power: p of the time grid :math:`t_i = (i / T)^p`; above 1 it is finer at the start, where modes are decided.
        train_draws: triples (rater, u, t) per image and training step, for one pass of the base; the loss is their mean. Raters
            are taken without replacement, times spread over [0, 1].

    Raises:
        ValueError: for an unknown option, ``steps`` below 1, or a network with another number of outputs.
    """

    step_network = "flow"

    def __init__(
        self,
        base: nn.Module | None,
        flow: nn.Module,
        *,
        num_classes: int = 2,
        base_std: float = 1.0,
        velocity: Literal["markov", "path"] = "markov",
        solver: Literal["euler", "midpoint", "heun", "dopri5"] = "euler",
        steps: int = 10,
        grid_power: float = 2.0,
        train_draws: int = 1,
    ) -> None:
        super().__init__(num_classes=num_classes)
        check_option("velocity", velocity, VELOCITIES)
        check_option("solver", solver, SOLVERS)
        if base_std <= 0 or train_draws < 1:
            raise ValueError(f"base_std is {base_std}, train_draws {train_draws}; they must be above 0 and at least 1.")
        solver_grid(solver, steps, grid_power)  # refuses bad values here rather than at the first validation
        self.base, self.flow = base, flow
        self.base_std, self.velocity, self.solver = base_std, velocity, solver
        self.steps, self.grid_power = steps, grid_power
        self.train_draws = train_draws

    def objective(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        m = self.train_draws
        mask = pick_rater(masks, m).flatten(0, 1).long()  # (B * m, *S)
        y = one_hot(mask[:, None], self.num_classes)  # (B * m, K, *S)
        code = tuple(repeat_rows(part, m) for part in self.encode(image))
        u = code[0] + code[1] * torch.randn_like(code[0])
        # one time in each m-th of [0, 1]: every t is uniform, and a case sees early and late ones
        t = (torch.rand(len(image), 1, device=image.device) + torch.arange(m, device=image.device) / m).remainder(1)
        t = t.flatten()  # (B * m,)
        y_t = torch.lerp(u, y, unsqueeze_right(t, u.ndim))
        return {"loss": F.cross_entropy(self.flow_logits(y_t, t, code), mask)}

    def draw_noise(self, image: Tensor, n: int) -> tuple[Tensor, ...]:
        return (torch.randn(len(image), n, self.num_classes, *image.shape[2:], device=image.device),)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the mean (B, K, *S) and standard deviation of the base, and what else the flow sees, if anything."""
        loc, scale = gaussian_base(self.base, image, self.num_classes, self.base_std)
        return (loc, scale, image) if self.base is None else (loc, scale)

    def decode(self, code: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        u = code[0] + code[1] * noise[0]

        def probabilities(t: Tensor, y: Tensor) -> Tensor:
            return self.flow_logits(y, t.expand(len(y)), code).softmax(dim=1)

        grid = solver_grid(self.solver, self.steps, self.grid_power).to(u.device)
        return VELOCITIES[self.velocity](probabilities, u, grid, SOLVERS[self.solver])

    def flow_logits(self, y: Tensor, t: Tensor, code: tuple[Tensor, ...]) -> Tensor:
        """Return the logits (B, K, *S) of the flow at y (B, K, *S) and times t (B,), given ``code`` of :meth:`encode`."""
        return self._checked(self.flow(torch.cat([y, *code[2:]], dim=1) if code[2:] else y, t))

    def _checked(self, logits: Tensor) -> Tensor:
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"the flow has {logits.shape[1]} outputs; it needs num_classes = {self.num_classes}.")
        return logits.float()
