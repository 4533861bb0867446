import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch import nn

from monai_flowssn.handlers.ema import WarmUpEMAHandler


def trainer_of(model, steps):
    """An engine whose "training" sets the weight to the next of ``steps``."""

    def step(engine, value):
        with torch.no_grad():
            model.weight.fill_(value)

    return Engine(step), steps


def test_the_average_follows_the_formula_with_warm_up_and_cap():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    ema = WarmUpEMAHandler(model, decay=0.5)
    values = [float(v) for v in range(1, 13)]
    engine, data = trainer_of(model, values)
    ema.attach(engine)
    engine.run(data, max_epochs=1)
    expected = 2.0
    for n, value in enumerate(values):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert min(0.5, (1 + 11) / (10 + 11)) == 0.5  # the cap was reached
    assert ema.updates == 12
    assert ema.ema_model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_resumed_average_does_not_warm_up_again(tmp_path):
    values = [float(v) for v in range(1, 41)]

    def run(data, resume=False, save=False):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 2.0)
        ema = WarmUpEMAHandler(model, decay=0.999)
        engine, _ = trainer_of(model, data)
        if resume:
            CheckpointLoader(str(tmp_path / "last.ckpt"), {"model": model, "ema": ema}).attach(engine)
        ema.attach(engine)
        if save:
            saver = CheckpointSaver(
                str(tmp_path), {"model": model, "ema": ema}, save_final=True, final_filename="last.ckpt"
            )
            saver.attach(engine)
        engine.run(data, max_epochs=1)
        return ema

    whole = run(values)
    run(values[:20], save=True)
    resumed = run(values[20:], resume=True)
    assert resumed.updates == 40
    torch.testing.assert_close(resumed.ema_model.weight, whole.ema_model.weight)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="between 0 and 1"):
        WarmUpEMAHandler(nn.Linear(1, 1), decay=decay)


def test_the_average_begins_where_a_handler_before_it_puts_the_weights():
    model = nn.Linear(1, 1, bias=False)
    ema = WarmUpEMAHandler(model, decay=0.999)
    engine, _ = trainer_of(model, [5.0])
    engine.add_event_handler(Events.STARTED, lambda: nn.init.constant_(model.weight, 5.0))
    ema.attach(engine)
    engine.run([5.0], max_epochs=1)
    assert ema.ema_model.weight.item() == 5.0
