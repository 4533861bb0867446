"""The second stage of a training, on the kernel score of draws."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from monai_flowssn.handlers.best_checkpoint import BestCheckpoint
from monai_flowssn.handlers.budget import Budget

__all__ = ["Finishing", "stage_schedule"]


class Finishing:
    """Train the last share of a budget on :func:`~monai_flowssn.kernel_score.kernel_score` instead of the method's own loss.

    When that share begins, the optimiser forgets its moments, which are those of another loss, and the best model so far, which
    was not finished. List it behind the budget and before the schedule, and save it in the checkpoint that a training continues
    from. The trainer calls the network with what is :attr:`asked`.

    Args:
        budget: of the training.
        share: of the budget, at its end; 0 trains on the method's own loss alone.
        optimizer: of the training.
        best: what keeps the best model.
        draws: per image and step, at least 2.

    Raises:
        ValueError: if ``share`` is not within [0, 1), or for fewer than two draws.
    """

    def __init__(
        self, budget: Budget, *, share: float, optimizer: Optimizer, best: BestCheckpoint, draws: int = 4
    ) -> None:
        if not 0 <= share < 1:
            raise ValueError(
                f"finish is {share}; it is the share of the budget for the kernel score, and the method's own loss comes first: "
                "pass 0 <= finish < 1, such as 0.3."
            )
        if draws < 2:
            raise ValueError(f"draws is {draws}; the score compares draws with each other: pass 2 or more.")
        self.budget, self.share, self.draws = budget, share, draws
        self.optimizer, self.best = optimizer, best
        self.started: int | None = None  # iterations before this stage, once it has begun

    @property
    def active(self) -> bool:
        """Whether the stage has begun."""
        return self.started is not None

    @property
    def asked(self) -> dict[str, int]:
        """What :class:`~monai_flowssn.segmenters.StochasticSegmenter` is called with besides: how many draws to score."""
        return {"score_draws": self.draws} if self.active else {}

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``."""
        if self.share:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)

    def _look(self, engine: Engine) -> None:
        if self.started is None and self.budget.progress >= 1 - self.share:
            self.started = engine.state.iteration
            self.optimizer.state.clear()
            self.best.forget()
            engine.logger.info(
                "finishing by the kernel score of %d draws from iteration %d on", self.draws, self.started
            )

    def within_stage(self, step: int) -> tuple[int, float]:
        """Return the steps since the present stage began, and the share of it that is done."""
        if self.started is None:
            return step, min(1.0, self.budget.progress / (1 - self.share))
        return step - self.started, max(0.0, 1 - (1 - self.budget.progress) / self.share)

    def state_dict(self) -> dict[str, int | None]:
        """When the stage began."""
        return {"started": self.started}

    def load_state_dict(self, state_dict: Mapping[str, int | None]) -> None:
        """Continue from :meth:`state_dict`."""
        self.started = state_dict["started"]


def stage_schedule(
    optimizer: Optimizer, finishing: Finishing, warmup_steps: int = 0, to_zero: bool = True, *, finish_rate: float = 0.3
) -> LambdaLR:
    """Return a schedule of the learning rate, the same in both stages of a training: a linear warm-up, then a cosine to zero.

    Args:
        optimizer: whose rates are those of the first stage.
        finishing: which knows the stages.
        warmup_steps: of each stage, at most a tenth of it.
        to_zero: whether the rate falls with the budget; otherwise it stays.
        finish_rate: rate of the second stage, relative to the first.
    """

    def factor(step: int) -> float:
        steps, done = finishing.within_stage(step)
        warm = min(1.0, max((steps + 1) / max(warmup_steps, 1), 10 * done))
        fall = 0.5 * (1 + math.cos(math.pi * done)) if to_zero else 1.0
        return (finish_rate if finishing.active else 1.0) * warm * fall

    return LambdaLR(optimizer, factor)
