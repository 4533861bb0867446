"""A continuous Flow-SSN that draws in one or a few steps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from monai_flowssn.sampling import time_grid
from monai_flowssn.segmenters.base import as_column, one_hot
from monai_flowssn.segmenters.continuous import ContinuousFlowSSN

__all__ = ["ReflowSSN"]


class ReflowSSN(ContinuousFlowSSN):
    r"""Teach the flow of a trained continuous Flow-SSN to arrive in few steps (reflow, Liu et al. 2023, arXiv 2209.03003).

    Each u of the base has one end y of the teacher's trajectory. Trained on these pairs rather than on independent ones, with
    :math:`y_t = (1 - t) u + t y` at the times of the few-step grid, the flow learns to say at t = 0 already where u ends. To the
    loss of training comes 1 - soft IoU of each draw and its teacher's: pixel by pixel alone, masks stay further apart. Base and
    teacher stay as they are, and no masks are needed. The weights that come out are those of a ``ContinuousFlowSSN`` with this
    number of steps.

    Args:
        base: as of ``ContinuousFlowSSN``.
        flow: as of ``ContinuousFlowSSN``.
        checkpoint: weights of the trained model, from which teacher and pupil start.
        teacher_steps: steps of the teacher.
        steps: steps of the pupil.
        options: the others of ``ContinuousFlowSSN``.

    Raises:
        ValueError: if the weights are not those of these networks.
    """

    def __init__(
        self,
        base: nn.Module | None,
        flow: nn.Module,
        *,
        checkpoint: str | Path,
        teacher_steps: int = 25,
        steps: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(base, flow, steps=steps, **options)
        try:
            self.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
        except RuntimeError as error:
            raise ValueError(
                f"{checkpoint} does not fit these networks; give the scale and options it was trained with. {error}"
            ) from error
        teacher = ContinuousFlowSSN(base, copy.deepcopy(flow), steps=teacher_steps, **options)
        self._teacher = (teacher.requires_grad_(False).eval(),)  # a tuple: not among the weights to train and to save
        self.distance = DiceLoss(
            jaccard=True, include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1, smooth_dr=1
        )

    def loss(self, image: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Compute the objective; see :meth:`StochasticSegmenter.loss`. The masks are not used."""
        (teacher,) = self._teacher
        teacher.flow.to(image.device)
        with torch.no_grad():
            noise = self.draw_noise(image, self.train_draws)
            code = teacher.eval().encode(image)
            rows = tuple(part.repeat_interleave(self.train_draws, dim=0) for part in code)
            (z,) = (part.flatten(0, 1) for part in noise)
            label = teacher.decode(rows, (z,)).argmax(dim=1)  # (B * m, *S)
            loc, scale, *condition = rows
            times = time_grid(self.steps, self.grid_power)[:-1].to(image.device)
            t = times[torch.randint(len(times), (len(label),), device=image.device)]  # (B * m,)
            u = loc + scale * z
            y_t = torch.lerp(u, one_hot(label, self.num_classes), as_column(t, u))
        logits = self._logits(y_t, t, *condition)
        cross_entropy, distance = F.cross_entropy(logits, label), self.distance(logits, label[:, None])
        return {"loss": cross_entropy + distance, "cross_entropy": cross_entropy, "distance": distance}
