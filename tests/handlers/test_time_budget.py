from __future__ import annotations

import time

import pytest
from ignite.engine import Engine

from monai_flowssn.handlers import TimeBudget


def train(seconds, *, max_epochs=50, validation=0.0):
    engine = Engine(lambda engine, batch: time.sleep(0.002))
    budget = TimeBudget(seconds)
    budget.attach(engine)
    completed = []
    engine.add_event_handler("EPOCH_COMPLETED", lambda engine: completed.append(engine.state.epoch))
    engine.add_event_handler("EPOCH_COMPLETED", lambda engine: time.sleep(validation))
    engine.run(range(20), max_epochs=max_epochs)
    return engine, budget, completed


def test_the_last_epoch_is_completed_early():
    engine, budget, completed = train(0.1)
    assert completed == list(range(1, engine.state.epoch + 1))
    assert engine.state.epoch < 50
    assert 0.1 <= budget.spent < 1


def test_validation_is_not_counted():
    engine, budget, _ = train(None, max_epochs=2, validation=0.5)
    assert budget.spent < 0.5
    assert engine.state.epoch == 2


def test_a_resumed_training_has_only_the_rest():
    _, budget, _ = train(0.1)
    again = TimeBudget(0.1)
    again.load_state_dict(budget.state_dict())
    engine = Engine(lambda engine, batch: None)
    again.attach(engine)
    engine.run(range(20), max_epochs=5)
    assert engine.state.epoch == 1
    assert engine.state.iteration == 1


def test_a_budget_is_positive():
    with pytest.raises(ValueError, match="must be above 0"):
        TimeBudget(0)
