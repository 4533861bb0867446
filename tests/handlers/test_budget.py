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


@pytest.mark.parametrize(("spent", "epochs"), [(0.0, 5), (0.2, 0)])
def test_a_resumed_training_has_only_the_rest(spent, epochs):
    budget = TimeBudget(0.2)
    engine = Engine(lambda engine, batch: None)
    budget.attach(engine)
    # as LastCheckpoint does
    engine.add_event_handler("STARTED", lambda engine: budget.load_state_dict({"spent": spent}))
    engine.run(range(20), max_epochs=5)
    assert engine.state.epoch == epochs
    assert engine.state.iteration == 20 * epochs


def test_a_budget_is_positive():
    with pytest.raises(ValueError, match="must be above 0"):
        TimeBudget(0)
