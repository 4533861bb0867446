"""What trains: the order of the data, and the engine with all that keeps a training whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.data import DataLoader, DistributedSampler
from monai.engines import SupervisedTrainer
from monai.engines.utils import PrepareBatchExtraInput
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.utils import set_determinism
from torch.utils.data import Dataset

from monai_flowssn.data import write_manifest
from monai_flowssn.files import hold
from monai_flowssn.handlers import (
    EarlyStop,
    EpochSeed,
    Finishing,
    FixedOptions,
    LastCheckpoint,
    LastValidation,
    MLflowRunHandler,
    StopOnNonFinite,
    UnscaledBFloat16,
    WarmUpEMAHandler,
)
from monai_flowssn.workflows.devices import precision
from monai_flowssn.workflows.evaluation import quiet, workers
from monai_flowssn.workflows.preprocessing import Data

__all__ = ["prepare", "trainer", "training_loader"]


def prepare(
    *,
    seed: int,
    output_dir: str,
    about: str,
    groups: Mapping[str, Sequence[Mapping[str, Any]]],
    ckpt_dir: str | None = None,
) -> None:
    """Seed all randomness, and write into ``output_dir`` which cases a training or an evaluation is of.

    The folders are this process's until it ends (:func:`~monai_flowssn.files.hold`).

    Args:
        seed: of everything.
        output_dir: folder of the results; it is made.
        about: name of the data set.
        groups: its cases, by split.
        ckpt_dir: folder of the models, for a training.

    Raises:
        ValueError: if another process writes into one of the folders.
    """
    set_determinism(seed)
    if os.environ.get("RANK", "0") == "0":  # of torchrun; the processes have not met yet
        for folder in filter(None, (ckpt_dir, output_dir)):
            hold(Path(folder))
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    write_manifest(Path(output_dir, "manifest.json"), about=about, **groups)


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
    device: torch.device | str,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    train_handlers: Sequence[Any],
    ema: WarmUpEMAHandler,
    finishing: Finishing,
    mlflow: MLflowRunHandler,
    data: Data,
    ckpt_dir: str,
    resume: bool = False,
    early_stop_patience: int | None = None,
    amp: bool | None = None,
    **options: Any,
) -> SupervisedTrainer:
    """Return MONAI's trainer of a stochastic segmenter, with the handlers that make it end well and go on if it is killed.

    Around the given handlers, in the order in which they depend on each other: the budget and its last stage; MLflow; the average
    of the weights; a seed for every epoch; an end where numbers are not finite any more; after the validation ``model.pt``,
    ``last.ckpt`` and the early stop.

    Args:
        device: where it computes.
        network: whose loss terms are asked for with an image and its masks; ``loss`` among them is minimised.
        optimizer: of its parameters.
        train_handlers: MONAI's ``ValidationHandler`` and ``LrScheduleHandler``, and any others.
        ema: averages the weights; what it averages is validated, and kept as ``model.pt``.
        finishing: the last stage, which knows the budget and the best model.
        mlflow: the run, of training and validation.
        data: what it trains on.
        ckpt_dir: folder of ``last.ckpt``.
        resume: whether to continue from ``last.ckpt``, if there is one.
        early_stop_patience: validations without a better key metric, after which it ends.
        amp: False for float32 on a GPU.
        options: others of ``SupervisedTrainer``.

    Raises:
        ValueError: without a ``ValidationHandler``, because it chooses the model.
    """
    parts = {
        "fixed": FixedOptions(data.fixed),
        "network": network,
        "ema": ema,
        "optimizer": optimizer,
        "mlflow": mlflow,
        "budget": finishing.budget,
        "finishing": finishing,
        "best": finishing.best,
    }
    loader = options["train_data_loader"]
    return SupervisedTrainer(
        device=torch.device(device),
        network=network,
        optimizer=optimizer,
        loss_function=lambda terms, masks: terms["loss"],
        prepare_batch=PrepareBatchExtraInput(extra_keys="label"),
        train_handlers=_around(
            quiet(train_handlers), parts, loader, folder=ckpt_dir, resume=resume, patience=early_stop_patience
        ),
        decollate=False,
        non_blocking=True,
        optim_set_to_none=True,
        **precision(device, amp),
        **options,
    )


def _around(
    handlers: list[Any],
    parts: Mapping[str, Any],
    loader: DataLoader,
    *,
    folder: str,
    resume: bool,
    patience: int | None,
) -> list[Any]:
    """Return the handlers with those that keep the training whole, in the order in which they depend on each other.

    Args:
        handlers: of the configuration.
        parts: of the training's state, by name.
        loader: of its data.
        folder: of the checkpoints.
        resume: whether to continue from the last.
        patience: of the early stop.
    """
    places = [i for i, handler in enumerate(handlers) if isinstance(handler, ValidationHandler)]
    if not places:
        raise ValueError("train::handlers has no ValidationHandler; model.pt is what validates best: give one.")
    validation, end = handlers[places[-1]], places[-1] + 1
    parts["best"].attach(validation.validator)
    state = dict(parts)
    seed = loader.sampler.seed  # type: ignore[attr-defined]  # that of training_loader has one
    for handler in handlers:
        if isinstance(handler, LrScheduleHandler):
            state["lr_scheduler"] = handler.lr_scheduler
    # those that tell come after the checkpoint: at an error they raise, and what it has to tell would not be heard
    return [
        *(parts[name] for name in ("budget", "finishing", "mlflow", "ema")),
        UnscaledBFloat16(),
        EpochSeed(seed, loader),
        StopOnNonFinite(folder, state),
        *handlers[:end],
        LastValidation(validation.validator, validation.interval),
        LastCheckpoint(folder, state, resume=resume),
        EarlyStop(parts["best"], patience),
        *handlers[end:],
    ]
