import logging
import math

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.handlers import CheckpointLoader, StatsHandler
from torch import nn

from monai_flowssn.handlers.bfloat16 import UnscaledBFloat16
from monai_flowssn.handlers.ema import WarmUpEMAHandler
from monai_flowssn.handlers.non_finite import StopOnNonFinite, _case_ids


class TrackWeights:
    """What the weights and buffers were after every iteration."""

    def __init__(self, network):
        self.network, self.states = network, []

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        self.states.append({k: v.clone() for k, v in self.network.state_dict().items()})


def batches(values):
    return [
        {"image": torch.full((2, 1), v), "label": torch.ones(2, 1), "case": [f"a{i}", f"b{i}"]}
        for i, v in enumerate(values)
    ]


def train(tmp_path, values, loss=nn.functional.mse_loss, norm=True, handlers=()):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3) if norm else nn.Identity(), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    track, ema = TrackWeights(network), WarmUpEMAHandler(network)
    stop = StopOnNonFinite(tmp_path / "out", {"network": network, "ema": ema, "optimizer": optimizer})
    trainer = SupervisedTrainer(
        "cpu",
        2,
        batches(values),
        network,
        optimizer,
        loss,
        decollate=False,
        train_handlers=[stop, ema, track, *handlers],
    )
    return trainer, track, ema


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_batch_stops_with_its_cases_and_the_state_before_it_is_saved(tmp_path, bad):
    trainer, track, _ = train(tmp_path, [1.0, 2.0, bad, 3.0])
    with pytest.raises(
        FloatingPointError, match=r"loss of nan in epoch 1, iteration 3, cases a2, b2; .*last_good\.ckpt"
    ):
        trainer.run()
    assert len(track.states) == 2
    saved = torch.load(tmp_path / "out" / "last_good.ckpt", weights_only=True)
    assert saved["ema"]["updates"] == 2
    for name, value in track.states[-1].items():  # the running statistics of the normalisation as well
        torch.testing.assert_close(saved["network"][name], value, rtol=0, atol=0)
    for state in (saved["network"], saved["ema"]["model"]):
        assert all(torch.isfinite(value).all() for value in state.values())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["last_good.ckpt"]


def test_the_saved_state_is_loaded_by_monai(tmp_path):
    trainer, track, _ = train(tmp_path, [1.0, math.nan])
    with pytest.raises(FloatingPointError):
        trainer.run()
    again, _, ema = train(tmp_path, [1.0])
    path = str(tmp_path / "out" / "last_good.ckpt")
    CheckpointLoader(path, {"network": again.network, "ema": ema, "optimizer": again.optimizer})(again)
    torch.testing.assert_close(again.network.state_dict(), track.states[-1])


def test_an_infinite_gradient_of_a_finite_loss_stops_before_it_reaches_the_weights(tmp_path):
    def loss(prediction, target):  # sqrt has an infinite slope at 0: finite value, no finite gradient
        return (prediction * 0).abs().sum().sqrt() + nn.functional.mse_loss(prediction, target)

    trainer, track, _ = train(tmp_path, [1.0, 2.0], loss=loss, norm=False)
    start = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    with pytest.raises(FloatingPointError, match="non-finite gradient"):
        trainer.run()
    assert not track.states
    saved = torch.load(tmp_path / "out" / "last_good.ckpt", weights_only=True)
    torch.testing.assert_close(saved["network"], start, rtol=0, atol=0)


def test_a_healthy_training_is_left_alone(tmp_path):
    logging.getLogger("ignite.engine.engine.SupervisedTrainer").setLevel(logging.INFO)
    trainer, track, _ = train(
        tmp_path, [1.0, 1e18], norm=False, handlers=[StatsHandler(output_transform=lambda o: o["loss"])]
    )
    trainer.run()  # the squared norm of these gradients overflows, but they are finite
    assert len(track.states) == 4
    assert not (tmp_path / "out").exists()


def test_case_ids_of_all_sorts_of_batches():
    image = MetaTensor(torch.zeros(2, 1), meta={"filename_or_obj": ["x.png", "y.png"]})
    assert _case_ids({"case": ["a", "a", "b"]}) == ["a", "b"]
    assert _case_ids([{"case": "a"}, {"case": "b"}]) == ["a", "b"]
    assert _case_ids({"image": image}) == ["x.png", "y.png"]
    assert _case_ids({"image": torch.zeros(1)}) == []
    assert _case_ids((torch.zeros(1), torch.zeros(1))) == []


without_cuda = pytest.mark.filterwarnings("ignore:CUDA is not available")  # for an autocast that does nothing here


class UseScaler:
    """A gradient scaler on the CPU, where MONAI's trainer has none."""

    def __init__(self, scaler):
        self.scaler = scaler

    def attach(self, engine):
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine):
        engine.amp, engine.scaler = True, self.scaler


def infinite_gradient(prediction, target):
    return torch.sqrt(prediction - prediction.detach()).sum()  # the derivative of the root at 0


@without_cuda
def test_a_gradient_scaler_that_skips_every_step_ends_the_training(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer, track, _ = train(tmp_path, [1.0] * 9, infinite_gradient, norm=False, handlers=[UseScaler(scaler)])
    with pytest.raises(FloatingPointError, match="non-finite gradients so often .*iteration 5"):
        trainer.run()
    for name, value in track.states[0].items():
        torch.testing.assert_close(track.states[-1][name], value, rtol=0, atol=0)


@without_cuda
def test_bfloat16_is_trained_without_a_scaler_and_its_gradient_looked_at(tmp_path):
    scaler = torch.amp.GradScaler("cpu")
    handlers = [UseScaler(scaler), UnscaledBFloat16()]
    trainer, _, _ = train(tmp_path, [1.0] * 3, infinite_gradient, norm=False, handlers=handlers)
    trainer.amp_kwargs = {"dtype": torch.bfloat16}
    with pytest.raises(FloatingPointError, match="a non-finite gradient .*"):
        trainer.run()
    assert trainer.amp
    assert not trainer.scaler.is_enabled()


@without_cuda
def test_float16_keeps_its_scaler(tmp_path):
    scaler = torch.amp.GradScaler("cpu")
    trainer, _, _ = train(tmp_path, [1.0], handlers=[UseScaler(scaler), UnscaledBFloat16()])
    trainer.amp_kwargs = {"dtype": torch.float16}
    trainer.run()
    assert trainer.scaler is scaler
