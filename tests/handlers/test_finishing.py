from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine, Events

from monai_flowssn.handlers import BestCheckpoint, Budget, Finishing, stage_schedule


def course(tmp_path, share, *, epochs=10, state=None, stop=None, **schedule):
    """Train 10 steps an epoch; return the rates, when the score was on, and the parts."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    budget, best = Budget(), BestCheckpoint(tmp_path, torch.nn.Linear(1, 1))
    finishing = Finishing(budget, share=share, optimizer=optimizer, best=best)
    scheduler = stage_schedule(optimizer, finishing, **schedule)
    parts = {"budget": budget, "finishing": finishing, "optimizer": optimizer, "scheduler": scheduler}
    rates, active, moments = [], [], []

    def step(engine, batch):
        rates.append(optimizer.param_groups[0]["lr"])
        active.append(finishing.active)
        moments.append(len(optimizer.state))
        optimizer.zero_grad()
        weight.sum().backward()
        optimizer.step()

    engine = Engine(step)
    budget.attach(engine)
    finishing.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: scheduler.step())
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        engine.load_state_dict({"epoch": 8, "epoch_length": 10, "max_epochs": epochs, "seed": None})
    best.best = 0.5
    if stop is not None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=stop), engine.terminate)
    engine.run(range(10), max_epochs=epochs)
    return rates, active, moments, best, {name: part.state_dict() for name, part in parts.items()}


def test_the_score_has_the_last_share_and_the_rate_falls_to_zero_twice(tmp_path):
    rates, active, moments, best, _ = course(tmp_path, 0.3, warmup_steps=3)
    assert active == [False] * 70 + [True] * 30
    assert moments == [0] + [1] * 69 + [0] + [1] * 29  # forgotten once
    assert best.best == math.inf
    for first, count, rate in ((0, 70, 0.1), (70, 30, 0.03)):
        for i in range(count):
            fall = 0.5 * (1 + math.cos(math.pi * i / count))
            assert rates[first + i] == pytest.approx(rate * min(1, (i + 1) / 3) * fall), i


def test_without_a_share_there_is_one_stage(tmp_path):
    rates, active, _, best, _ = course(tmp_path, 0.0, to_zero=False, warmup_steps=20)
    assert not any(active)
    assert best.best == 0.5
    assert rates[10:] == pytest.approx([0.1] * 90)  # a warm-up takes a tenth of a training at most


def test_a_resumed_training_goes_on_in_its_stage(tmp_path):
    whole, *_ = course(tmp_path, 0.3, warmup_steps=5)
    rates, _, _, _, state = course(tmp_path, 0.3, warmup_steps=5, stop=8)
    rest, active, moments, best, _ = course(tmp_path, 0.3, warmup_steps=5, state=state)
    assert rates + rest == pytest.approx(whole)
    assert all(active)
    assert all(moments)
    assert best.best == 0.5


@pytest.mark.parametrize(
    ("options", "message"), [({"share": 1.0}, "finish is 1.0"), ({"share": 0.3, "draws": 1}, "draws is 1")]
)
def test_options_out_of_range_are_refused(options, message, tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=message):
        Finishing(Budget(), optimizer=optimizer, best=BestCheckpoint(tmp_path, torch.nn.Linear(1, 1)), **options)
