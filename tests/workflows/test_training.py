"""The loaders and the schedule of a training, and its handlers in their order."""

from __future__ import annotations

import pytest
import torch
from ignite.handlers import ProgressBar
from monai.data import Dataset
from monai.handlers import StatsHandler
from torch import nn

from monai_flowssn.handlers import BestCheckpoint, Budget, Finishing
from monai_flowssn.metrics import compute_ged
from monai_flowssn.workflows import (
    Data,
    Run,
    case_loader,
    on_device,
    plain_settings,
    precision,
    trainer,
    training_loader,
    validation_metrics,
)
from monai_flowssn.workflows.evaluation import quiet
from monai_flowssn.workflows.training import PrepareMasks


def in_process(monkeypatch, rank, processes):
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: rank)
    monkeypatch.setattr("ignite.distributed.get_world_size", lambda: processes)


def order(loader):
    return [int(each) for batch in loader for each in batch["x"]]


ITEMS = Dataset([{"x": i} for i in range(7)])


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 4), (2, 2), (4, 1)])
def test_any_number_of_processes_sees_the_same_batches(monkeypatch, processes, batch_size):
    shares = []
    for rank in range(processes):
        in_process(monkeypatch, rank, processes)
        shares.append(order(training_loader(ITEMS, batch_size=batch_size, seed=3)))
    first = {share for each in shares for share in each[:batch_size]}
    in_process(monkeypatch, 0, 1)
    assert first == set(order(training_loader(ITEMS, batch_size=4, seed=3))[:4])


def test_what_is_left_over_is_dropped_unless_it_is_all(monkeypatch):
    assert len(order(training_loader(ITEMS, batch_size=4, seed=0))) == 4
    assert len(order(training_loader(ITEMS, batch_size=9, seed=0))) == 7


def test_every_case_counts_once(monkeypatch):
    seen = []
    for rank in (0, 1):
        in_process(monkeypatch, rank, 2)
        seen += order(case_loader(ITEMS, batch_size=2))
    assert sorted(seen) == list(range(7))
    one = Dataset([{"x": 5}])
    in_process(monkeypatch, 1, 2)
    assert order(case_loader(one, batch_size=2, copies=True)) == [5]


@pytest.mark.parametrize(("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_the_layout_is_that_of_the_convolutions(dims, layout):
    conv = (nn.Conv2d, nn.Conv3d)[dims - 2](4, 4, 3)
    assert on_device(conv, "cpu").weight.is_contiguous(memory_format=layout)


def test_a_cpu_has_no_autocast_of_monai():
    assert precision("cpu")["amp"] is False
    assert precision(torch.device("cpu"), amp=True)["amp"] is False


def test_only_the_first_process_tells(monkeypatch):
    handlers = [StatsHandler(), ProgressBar(), nn.Identity()]
    assert quiet(handlers) == handlers
    in_process(monkeypatch, 1, 2)
    assert quiet(handlers) == handlers[2:]


def test_a_training_without_validation_is_refused():
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="train::handlers has no ValidationHandler; model.pt is what validates best"):
        trainer(
            network=network,
            optimizer=optimizer,
            train_data_loader=training_loader(ITEMS, batch_size=1, seed=0),
            train_handlers=[],
            run=run(),
            optimisation={},
        )


def run():
    facts = {"channels": 1, "num_classes": 2, "raters": 1, "intensity_range": [0, 1]}
    places = dict.fromkeys(("bundle_root", "output_dir", "ckpt_dir"), "nowhere")
    return Run(**places, method="toy", data=Data(name="toy", cases=list, **facts), workflow="train")


@pytest.mark.parametrize("active", [False, True])
def test_the_last_stage_asks_the_network_for_the_score(active):
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    finishing = Finishing(Budget(), share=0.5, optimizer=optimizer, best=BestCheckpoint("nowhere", network), draws=3)
    finishing.started = 7 if active else None
    batch = {"image": torch.ones(1, 1), "label": torch.zeros(1, 1)}
    image, masks, others, options = PrepareMasks(finishing)(batch, "cpu")
    assert (image, masks, others) == (batch["image"], batch["label"], (batch["label"],))
    assert options == ({"score_draws": 3} if active else {})


def test_a_validation_under_which_no_model_could_be_chosen_is_refused():
    with pytest.raises(ValueError, match=r"1 draw per image \(--validate::inferer::n\).* give 2 or more"):
        validation_metrics(draws=1, num_classes=2)
    (key, *_), draws = validation_metrics(draws=2, num_classes=2), torch.tensor([[[0, 1], [0, 1]]])
    assert key == "val_ged_u_n2"
    assert compute_ged(draws, draws, estimator="u").item() == 0  # so two are enough


def test_settings_are_plain_values():
    network = {"_target_": "Net", "base": {"channels": [4, 8], "out": "@data::num_classes"}}
    config = {"lr": 0.1, "resume": True, "seed": "@other", "run": ["$1"], "network_def": network, "train": {"x": 1}}
    assert plain_settings(config) == {"lr": 0.1, "network_def.base.channels": [4, 8]}
