"""The checkpoint that a training continues from."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver

from monai_flowssn.files import written_whole

_OPTIONAL = ("scaler", "kept")  # not in every checkpoint
_ERRORS = (RuntimeError, ValueError, KeyError, EOFError, UnpicklingError)


class LastCheckpoint:
    """Write ``last.ckpt`` after every epoch, whole or not at all, and with ``resume`` continue from it.

    The one before it is kept as ``previous.ckpt`` and used, with a warning, where the last is damaged. The first is written
    before the first epoch. When a training ends with an error, whatever it is, the log tells how to go on. List this handler
    after those that change its state at the end of an epoch, such as a schedule: they run in their order.

    Args:
        save_dir: folder of ``last.ckpt``.
        save_dict: what makes up the state, by name; the training engine is added as ``trainer``.
        resume: whether to load an existing ``last.ckpt`` before the first epoch.

    Raises:
        ValueError: when no checkpoint can be read, or it does not fit what is trained.
    """

    filename = "last.ckpt"

    def __init__(self, save_dir: str | Path, save_dict: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path, self.save_dict, self.resume = Path(save_dir) / self.filename, dict(save_dict), resume
        self.previous = self.path.with_name("previous.ckpt")
        self._epochs: int | None = None  # that the file holds
        self._whole = True  # a damaged file must not replace the one before it

    def attach(self, engine: Engine) -> None:
        """Keep the state of MONAI's trainer ``engine``."""
        self.save_dict["trainer"] = engine
        engine.add_event_handler(Events.STARTED, self._take_scaler)
        engine.add_event_handler(Events.EPOCH_STARTED, self._save_first)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._tell)
        if self.resume:
            engine.add_event_handler(Events.STARTED, self._load)

    def _take_scaler(self, engine: Any) -> None:
        scaler = getattr(engine, "scaler", None)  # MONAI's trainer makes it when it starts to run
        if scaler is not None and scaler.is_enabled():
            self.save_dict["scaler"] = scaler

    def _save_first(self, engine: Engine) -> None:
        # so that a training which is killed in its first epoch continues the same MLflow run
        if engine.state.iteration == 0:
            self._write(engine, 0)

    def _save(self, engine: Engine) -> None:
        self._write(engine, engine.state.epoch)

    def _write(self, engine: Engine, epochs: int) -> None:
        if self._whole and self.path.is_file() and idist.get_rank() == 0:
            with written_whole(self.previous) as part:
                shutil.copyfile(self.path, part)
        saver = DiskSaver(str(self.path.parent), atomic=True, require_empty=False)
        # a new one each time: ignite's Checkpoint deletes its file of the same name before it writes the next
        Checkpoint(self.save_dict, saver, filename_pattern=self.filename)(engine)
        self._epochs, self._whole = epochs, True

    def _tell(self, engine: Engine, error: BaseException) -> None:
        if self._epochs is not None:
            how = "training stopped in epoch %d; the same command with --resume True continues after epoch %d, from %s"
            engine.logger.error(how, engine.state.epoch, self._epochs, self.path)
        raise error  # where an exception has a handler, ignite leaves the raising to it

    def _load(self, engine: Engine) -> None:
        paths = [path for path in (self.path, self.previous) if path.is_file()]
        if not paths:
            engine.logger.info("nothing to resume: %s does not exist, training starts at the beginning", self.path)
            return
        # the new run may go on for longer than the old one wanted to, on other data or among more processes
        max_epochs, epoch_length = engine.state.max_epochs, engine.state.epoch_length
        wanted = self._learning_rates()
        state = self._read(paths)
        known = {name: part for name, part in self.save_dict.items() if name in state or name not in _OPTIONAL}
        try:
            Checkpoint.load_objects(known, state)
        except _ERRORS as error:
            raise ValueError(
                f"{self.path} does not fit what is trained ({_reason(error)}); resume with the method, network, optimiser and "
                "options it was written with, or choose another output folder."
            ) from error
        engine.state.max_epochs = max_epochs
        if epoch_length is not None and engine.state.epoch_length != epoch_length:
            engine.state.iteration, engine.state.epoch_length = engine.state.epoch * epoch_length, epoch_length
        self._epochs = engine.state.epoch
        if self._learning_rates() != wanted:
            lr = "the learning rate is that of %s, %s; the one given now, %s, is not used: choose another folder to train with it"
            engine.logger.warning(lr, self.path, self._learning_rates(), wanted)

    def _learning_rates(self) -> list[float]:
        """Return those that the schedules start from."""
        optimizers = [part for part in self.save_dict.values() if isinstance(part, torch.optim.Optimizer)]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        return [float(group.get("initial_lr", group["lr"])) for group in groups]

    def _read(self, paths: list[Path]) -> dict[str, Any]:
        for path in paths:
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except _ERRORS as error:
                self._whole = False
                damage = f"{path} is damaged ({_reason(error)})"
                warnings.warn(f"{damage}; the checkpoint before it is used, if there is one.", stacklevel=2)
        raise ValueError(f"{damage}, and there is none before it: start anew, or in another output folder.")


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
