"""What trains: the order of the data, and the engine with all that keeps a training whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import torch
from monai.data import DataLoader, DistributedSampler
from monai.engines import SupervisedTrainer
from monai.engines.utils import PrepareBatchExtraInput
from monai.handlers import LrScheduleHandler, ValidationHandler
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from monai_flowssn.handlers import (
    BestCheckpoint,
    Budget,
    ClipGradient,
    EarlyStop,
    EpochSeed,
    Finishing,
    KeptOptions,
    LastCheckpoint,
    LastValidation,
    StopOnNonFinite,
    UnscaledBFloat16,
    WarmUpEMAHandler,
    stage_schedule,
)
from monai_flowssn.workflows.devices import precision
from monai_flowssn.workflows.evaluation import quiet, workers
from monai_flowssn.workflows.tracking import Run

__all__ = ["Optimisation", "trainer", "training_loader"]


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How the weights are moved, beside the optimiser.

    Args:
        warmup_steps: in which the learning rate rises linearly, at most a tenth of the training.
        lr_to_zero: whether the learning rate falls to zero over the budget, along a cosine.
        clip_norm: of the gradient.
        ema_decay: of the average of the weights, which is validated and kept as ``model.pt``.
        early_stop_patience: validations without a better key metric, after which the training ends.
    """

    warmup_steps: int = 100
    lr_to_zero: bool = True
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    early_stop_patience: int | None = None


def training_loader(
    dataset: Dataset, *, batch_size: int, seed: int, num_workers: int | None = None, **options: Any
) -> DataLoader:
    """Load batches in an order that is the same for any number of processes.

    What is left over of an epoch is dropped, unless it is all there is.

    Args:
        dataset: of the training.
        batch_size: of one process.
        seed: of the order.
        num_workers: processes that load; None for 4 with a GPU and 0 without.
        options: others of MONAI's ``DataLoader``.
    """
    processes = idist.get_world_size()
    whole = len(dataset) >= batch_size * processes  # type: ignore[arg-type]  # a map-style one has a length
    sampler = DistributedSampler(
        dataset, num_replicas=processes, rank=idist.get_rank(), shuffle=True, drop_last=whole, seed=seed
    )
    return DataLoader(
        dataset,
        num_workers=workers(num_workers),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=whole,
        pin_memory=torch.cuda.is_available(),
        **options,
    )


def trainer(
    *,
    network: nn.Module,
    optimizer: Optimizer,
    train_data_loader: DataLoader,
    train_handlers: Sequence[Any],
    run: Run,
    optimisation: Mapping[str, Any],
    time_limit: float | None = None,
    cpu_limit: float | None = None,
    finish: float = 0.0,
    resume: bool = False,
    amp: bool | None = None,
    **options: Any,
) -> SupervisedTrainer:
    """Return MONAI's trainer of a stochastic segmenter, with the handlers that make it end well and go on if it is killed.

    The evaluator of the ``ValidationHandler`` among the handlers gets the average of the weights to validate, and chooses
    ``model.pt`` by its key metric.

    Args:
        network: whose loss terms are asked for with an image and its masks; ``loss`` among them is minimised.
        optimizer: of its parameters.
        train_data_loader: that of :func:`training_loader`.
        train_handlers: MONAI's ``ValidationHandler``, and any others.
        run: what the training is of, where its files lie, and what logs it.
        optimisation: arguments of :class:`Optimisation`.
        time_limit: seconds of the whole run, after which it ends.
        cpu_limit: processor seconds in epochs, validation not counted, after which it ends.
        finish: share of the budget, at its end, that trains on the kernel score of draws (:class:`Finishing`).
        resume: whether to continue from ``last.ckpt``, if there is one.
        amp: False for float32 on a GPU.
        options: others of ``SupervisedTrainer``.

    Raises:
        ValueError: without a ``ValidationHandler``, because it chooses the model.
    """
    settings = Optimisation(**optimisation)
    budget = Budget(seconds=time_limit, cpu_seconds=cpu_limit)
    state = _state(network, optimizer, run, settings, budget, finish)
    return SupervisedTrainer(
        device=(device := next(network.parameters()).device),
        network=network,
        optimizer=optimizer,
        train_data_loader=train_data_loader,
        loss_function=lambda terms, masks: terms["loss"],
        prepare_batch=PrepareMasks(state["finishing"]),
        train_handlers=_around(train_handlers, state, settings, train_data_loader, run.ckpt_dir, resume=resume),
        decollate=False,
        non_blocking=True,
        optim_set_to_none=True,
        **precision(device, amp),
        **options,
    )


def _state(
    network: nn.Module, optimizer: Optimizer, run: Run, settings: Optimisation, budget: Budget, finish: float
) -> dict[str, Any]:
    """Return what makes up the state of a training, by its name in ``last.ckpt``."""
    ema = WarmUpEMAHandler(network, decay=settings.ema_decay)
    best = BestCheckpoint(run.ckpt_dir, ema.ema_model, run.model_options)
    finishing = Finishing(budget, share=finish, optimizer=optimizer, best=best)
    return {
        "kept": KeptOptions(run.data.kept),
        "network": network,
        "ema": ema,
        "optimizer": optimizer,
        "lr_scheduler": stage_schedule(optimizer, finishing, settings.warmup_steps, settings.lr_to_zero),
        "mlflow": run,
        "budget": budget,
        "finishing": finishing,
        "best": best,
    }


def _validation(handlers: Sequence[Any]) -> ValidationHandler:
    found = [handler for handler in handlers if isinstance(handler, ValidationHandler)]
    if not found:
        raise ValueError("train::handlers has no ValidationHandler; model.pt is what validates best: give one.")
    return found[-1]


def _around(
    handlers: Sequence[Any],
    state: Mapping[str, Any],
    settings: Optimisation,
    loader: DataLoader,
    folder: str,
    *,
    resume: bool,
) -> list[Any]:
    """Return the handlers with those that keep the training whole, in the order in which they depend on each other."""
    validation = _validation(handlers)
    validation.validator.network = state["ema"].ema_model  # type: ignore[union-attr]  # MONAI's evaluators have one
    last = handlers.index(validation) + 1
    for part in ("best", "mlflow"):
        state[part].attach(validation.validator)
    # those that tell come after the checkpoint: at an error they raise, and what it has to tell would not be heard
    return quiet(
        [
            *(state[part] for part in ("budget", "finishing", "mlflow")),
            UnscaledBFloat16(),
            EpochSeed(loader.sampler.seed, loader),  # type: ignore[attr-defined]  # that of training_loader has one
            StopOnNonFinite(folder, state),
            ClipGradient(settings.clip_norm),
            LrScheduleHandler(state["lr_scheduler"], epoch_level=False, print_lr=False),
            *handlers[:last],
            state["ema"],
            LastValidation(validation.validator, validation.interval),
            LastCheckpoint(folder, state, resume=resume),
            EarlyStop(state["best"], settings.early_stop_patience),
            *handlers[last:],
        ]
    )


class PrepareMasks(PrepareBatchExtraInput):
    """Give the network the masks beside the image, and in the last stage the number of draws to score."""

    def __init__(self, finishing: Finishing) -> None:
        super().__init__(extra_keys="label")
        self.finishing = finishing

    def __call__(self, *arguments: Any, **named: Any) -> tuple[Any, Any, tuple, dict]:
        """Return image, masks, and what else the network is called with."""
        image, masks, others, options = super().__call__(*arguments, **named)
        return image, masks, others, {**options, **self.finishing.asked}
