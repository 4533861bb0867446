"""Randomness that a resumed training repeats."""

from __future__ import annotations

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.utils import set_determinism
from torch.utils.data import DataLoader

from monai_flowssn.data.splits import stable_hash


class EpochSeed:
    """Make all randomness of an epoch a function of the seed and the epoch alone.

    Order of the data, augmentation, dropout and noise of epoch 7 are then the same whether epochs 1 to 6 ran in this process or
    in one that was killed, and no random state has to be saved. Workers of the loader must not outlive an epoch
    (``persistent_workers=False``), because theirs could not be set. Each process of a distributed training has its own noise.

    Args:
        seed: of the training.
        loader: of the training data; a sampler with ``set_epoch`` is told the epoch.

    Raises:
        ValueError: if the loader keeps its workers.
    """

    def __init__(self, seed: int, loader: DataLoader) -> None:
        if loader.persistent_workers:
            raise ValueError("the loader has persistent_workers=True, whose random state lasts: pass False.")
        self.seed, self.loader = seed, loader

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``, which makes a new iterator of the loader after the start of each epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reseed)

    def _reseed(self, engine: Engine) -> None:
        seed = stable_hash(f"{self.seed} {engine.state.epoch} {idist.get_rank()}") % 2**32
        set_determinism(seed)
        set_rnd(self.loader.dataset, seed)
        if hasattr(self.loader.sampler, "set_epoch"):
            self.loader.sampler.set_epoch(engine.state.epoch)
