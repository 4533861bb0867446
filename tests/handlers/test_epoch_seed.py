import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.transforms import RandGaussianNoise
from torch.utils.data import DistributedSampler

from monai_flowssn.handlers import EpochSeed


def record(first, last, seed=0):
    """What the epochs first .. last of a training see, dropout included."""
    data = Dataset(torch.arange(8.0).view(8, 1), RandGaussianNoise(prob=1.0))
    loader, seen = DataLoader(data, batch_size=4, shuffle=True, num_workers=0), {}

    def step(engine, batch):
        values = [batch.flatten(), torch.rand(2), torch.tensor([random.random(), np.random.uniform()])]  # noqa: NPY002, the global state is what is tested
        seen.setdefault(engine.state.epoch, []).append(torch.cat([value.float() for value in values]))

    engine = Engine(step)
    EpochSeed(seed, loader).attach(engine)
    engine.state.epoch_length = 2
    engine.load_state_dict({"epoch": first - 1, "epoch_length": 2, "max_epochs": last})
    engine.run(loader)
    return {epoch: torch.cat(values) for epoch, values in seen.items()}


def test_an_epoch_is_the_same_whatever_came_before():
    whole, rest = record(1, 4), record(3, 4)
    assert sorted(rest) == [3, 4]
    for epoch in rest:
        torch.testing.assert_close(rest[epoch], whole[epoch], rtol=0, atol=0)
    assert not torch.equal(whole[1], whole[2])
    assert not torch.equal(record(1, 1, seed=1)[1], whole[1])


def test_a_sampler_is_told_the_epoch():
    sampler = DistributedSampler(range(8), num_replicas=2, rank=0)
    loader = DataLoader(Dataset(list(range(8))), batch_size=4, sampler=sampler)
    engine = Engine(lambda engine, batch: None)
    EpochSeed(0, loader).attach(engine)
    engine.run(loader, max_epochs=3)
    assert sampler.epoch == 3


def test_workers_that_outlive_an_epoch_are_refused():
    loader = DataLoader(Dataset([1, 2]), num_workers=1, persistent_workers=True)
    with pytest.raises(ValueError, match="pass False"):
        EpochSeed(0, loader)
