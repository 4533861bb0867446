from __future__ import annotations

import time

import pytest
from ignite.engine import Engine

from monai_flowssn.handlers import Budget


def train(budget, *, max_epochs=50, step=lambda: time.sleep(0.002), validation=0.0):
    engine = Engine(lambda engine, batch: step())
    budget.attach(engine)
    seen = []
    engine.add_event_handler("ITERATION_COMPLETED", lambda engine: seen.append(budget.progress))
    engine.add_event_handler("EPOCH_COMPLETED", lambda engine: time.sleep(validation))
    engine.run(range(20), max_epochs=max_epochs)
    return engine, seen


def work():
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass


def test_progress_counts_epochs_where_there_is_no_limit():
    engine, seen = train(Budget(), max_epochs=2)
    assert engine.state.epoch == 2
    assert seen == pytest.approx([i / 40 for i in range(1, 41)])


def test_the_last_epoch_is_completed_early():
    completed = []
    budget = Budget(seconds=0.1)
    engine = Engine(lambda engine, batch: time.sleep(0.002))
    budget.attach(engine)
    engine.add_event_handler("EPOCH_COMPLETED", lambda engine: completed.append(engine.state.epoch))
    engine.run(range(20), max_epochs=50)
    assert completed == list(range(1, engine.state.epoch + 1))
    assert engine.state.epoch < 50
    assert budget.progress == 1
    assert 0.1 <= budget.spent < 1


def test_the_clock_counts_validation_and_the_processor_does_not():
    by_clock, by_processor = Budget(seconds=0.5), Budget(cpu_seconds=10)
    engine, _ = train(by_clock, validation=0.3)
    assert engine.state.epoch <= 3
    train(by_processor, max_epochs=2, validation=0.3)
    assert by_processor.cpu_spent < 0.3
    assert by_processor.spent >= 0.3


def test_a_limit_of_the_processor_ends_the_training():
    budget = Budget(cpu_seconds=0.1)
    engine, seen = train(budget, step=work)
    assert engine.state.epoch < 50
    assert 0.1 <= budget.cpu_spent < 1
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.parametrize("limit", ["seconds", "cpu_seconds"])
@pytest.mark.parametrize(("spent", "epochs"), [(0.0, 5), (20.0, 0)])
def test_a_resumed_training_has_only_the_rest(limit, spent, epochs):
    budget = Budget(**{limit: 20.0})
    engine = Engine(lambda engine, batch: None)
    budget.attach(engine)
    # as LastCheckpoint does
    state = {"spent": spent, "cpu_spent": spent}
    engine.add_event_handler("STARTED", lambda engine: budget.load_state_dict(state))
    engine.run(range(20), max_epochs=5)
    assert engine.state.epoch == epochs
    assert engine.state.iteration == 20 * epochs
    assert budget.state_dict()["spent"] >= spent


@pytest.mark.parametrize("limit", ["seconds", "cpu_seconds"])
def test_a_budget_is_positive(limit):
    with pytest.raises(ValueError, match=f"{limit} is 0; a budget is a number above 0"):
        Budget(**{limit: 0})
