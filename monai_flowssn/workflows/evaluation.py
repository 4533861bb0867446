"""What evaluates: the loader of cases, the metrics, and the engine that draws."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.handlers import ProgressBar
from monai.data import DataLoader, DistributedSampler
from monai.engines import SupervisedEvaluator
from monai.handlers import StatsHandler
from torch.utils.data import Dataset

from monai_flowssn.handlers import CaseMetricHandler, CompareOnce, standard_metrics
from monai_flowssn.sampling import compile_steps
from monai_flowssn.workflows.devices import precision

__all__ = ["case_loader", "evaluation_metrics", "evaluator", "quiet", "validation_metrics", "workers"]


def workers(number: int | None) -> int:
    """Return the worker processes of a loader: as given, else four beside a GPU and none on a CPU, where they gain nothing."""
    return number if number is not None else 4 * torch.cuda.is_available()


def case_loader(
    dataset: Dataset, *, batch_size: int, num_workers: int | None = None, copies: bool = False, **options: Any
) -> DataLoader:
    """Load every case once, whatever the number of processes.

    Args:
        dataset: of all cases.
        batch_size: of one process.
        num_workers: processes that load; None for 4 with a GPU and 0 without.
        copies: whether fewer cases than processes are repeated, so that each process has one.
        options: others of MONAI's ``DataLoader``.
    """
    processes = idist.get_world_size()
    even = copies and len(dataset) < processes  # type: ignore[arg-type]  # a map-style one has a length
    sampler = DistributedSampler(dataset, even, processes, idist.get_rank(), shuffle=False)
    return DataLoader(dataset, num_workers=workers(num_workers), batch_size=batch_size, sampler=sampler, **options)


def validation_metrics(*, draws: int, num_classes: int) -> dict[str, CaseMetricHandler]:
    """Return the metrics of a validation during training; the first is the one that chooses the model.

    It does not count a draw's distance to itself, which would favour draws that differ too little.

    Args:
        draws: number of draws N, at least 2.
        num_classes: K.

    Raises:
        ValueError: for one draw, which has no distance to another: its metric would be NaN, and no model the best.

    Example:
        >>> list(validation_metrics(draws=16, num_classes=2))
        ['val_ged_u_n16', 'val_ged_v_n16']
    """
    if draws < 2:
        raise ValueError(
            f"validation makes {draws} draw per image (--validate::inferer::n), but the metric that chooses the model compares "
            "draws with each other: give 2 or more, such as 16."
        )
    shared = CompareOnce(num_classes=num_classes)
    return {
        f"val_ged_{name}_n{draws}": CaseMetricHandler("ged", shared, estimator=name, num_classes=num_classes)
        for name in "uv"
    }


def evaluation_metrics(
    *, draws: int, num_classes: int, split: str, presets: str | Sequence[str] = ()
) -> dict[str, Any]:
    """Return the metrics of an evaluation: all at 16 and at ``draws``, the GED also in between, for its course.

    Args:
        draws: number of draws N.
        num_classes: K.
        split: prefix of the names.
        presets: published protocols to add, such as ["kohl"] (:data:`~monai_flowssn.metrics.PRESETS`).
    """
    return standard_metrics(
        num_classes=num_classes,
        draws=sorted({min(16, draws), draws}),
        split=split,
        ged_draws=[n for n in (1, 2, 4, 8, 32, 64) if n < draws],
        presets=presets,
    )


def evaluator(
    *,
    network: torch.nn.Module,
    val_handlers: Sequence[Any],
    compile: bool = False,
    amp: bool | None = None,
    **options: Any,
) -> SupervisedEvaluator:
    """Return MONAI's evaluator, for metrics of which less is better, in the precision of the device.

    Args:
        network: a :class:`~monai_flowssn.segmenters.StochasticSegmenter`, on its device.
        val_handlers: those that only tell are for the first of several processes.
        compile: whether the network of methods that draw in steps goes through ``torch.compile``; the first draw then takes half
            a minute or more.
        amp: False for float32 on a GPU.
        options: others of ``SupervisedEvaluator``.
    """
    if compile:
        compile_steps(network)
    device = next(network.parameters()).device
    return SupervisedEvaluator(
        device=device,
        network=network,
        val_handlers=quiet(val_handlers),
        metric_cmp_fn=operator.lt,
        **precision(device, amp),
        **options,
    )


def quiet(handlers: Sequence[Any]) -> list[Any]:
    """Return the handlers of this process: those that only tell are for the first of several."""
    return [each for each in handlers if idist.get_rank() == 0 or not isinstance(each, (StatsHandler, ProgressBar))]
