import os
import resource
import signal

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import nn

from monai_flowssn.handlers.ema import WarmUpEMAHandler
from monai_flowssn.handlers.last_checkpoint import LastCheckpoint
from monai_flowssn.networks import StreamlinedUNet

BATCHES = [{"image": torch.full((2, 1), v), "label": torch.ones(2, 1)} for v in (1.0, -2.0, 3.0)]


class Training:
    """A real trainer with all that must survive: weights, Adam's moments, the schedule and the moving average."""

    def __init__(self, folder, max_epochs, *, resume=False, network=None, stop_after=None):
        torch.manual_seed(0)
        self.network = network or nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
        self.optimiser = torch.optim.Adam(self.network.parameters(), 0.1)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimiser, 0.9)
        self.ema = WarmUpEMAHandler(self.network)
        state = {"network": self.network, "optimizer": self.optimiser, "schedule": self.schedule, "ema": self.ema}
        self.last = LastCheckpoint(folder, state, resume=resume)
        self.trainer = SupervisedTrainer(
            "cpu",
            max_epochs,
            BATCHES,
            self.network,
            self.optimiser,
            nn.functional.mse_loss,
            decollate=False,
            train_handlers=[self.ema, LrScheduleHandler(self.schedule, print_lr=False), self.last],
        )
        self.iterations = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: self.iterations.append(e.state.iteration))
        if stop_after:
            self.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop_after), self.crash)

    def crash(self):
        raise RuntimeError("power cut")

    def run(self):
        self.trainer.run()
        return self

    def state(self):
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": self.ema.ema_model.state_dict(),
            "updates": self.ema.updates,
            "epoch": self.trainer.state.epoch,
            "iteration": self.trainer.state.iteration,
        }


def test_training_in_two_parts_is_training_at_once(tmp_path):
    whole = Training(tmp_path / "whole", 3).run()
    Training(tmp_path / "parts", 1).run()
    rest = Training(tmp_path / "parts", 3, resume=True).run()
    assert rest.iterations == [4, 5, 6, 7, 8, 9]
    assert rest.trainer.state.max_epochs == 3
    assert (rest.trainer.state.epoch, rest.ema.updates) == (3, 9)
    torch.testing.assert_close(rest.state(), whole.state(), rtol=0, atol=0)


def test_another_learning_rate_is_not_taken_and_it_is_said(tmp_path, caplog):
    Training(tmp_path, 1).run()
    assert "learning rate" not in caplog.text
    more = Training(tmp_path, 2, resume=True)
    for group in more.optimiser.param_groups:
        group["initial_lr"] = 0.5
    more.run()
    assert "[0.1]; the one given now, [0.5], is not used" in caplog.text


def test_after_a_crash_the_last_whole_epoch_counts(tmp_path):
    whole = Training(tmp_path / "whole", 3).run()
    with pytest.raises(RuntimeError, match="power cut"):
        Training(tmp_path / "parts", 3, stop_after=5).run()
    rest = Training(tmp_path / "parts", 3, resume=True).run()
    assert rest.iterations == [4, 5, 6, 7, 8, 9]
    torch.testing.assert_close(rest.state(), whole.state(), rtol=0, atol=0)


def test_a_finished_training_does_nothing_more(tmp_path):
    first = Training(tmp_path, 2).run()
    again = Training(tmp_path, 2, resume=True).run()
    assert again.iterations == []
    torch.testing.assert_close(again.state(), first.state(), rtol=0, atol=0)


def test_without_resume_the_file_is_overwritten(tmp_path):
    first = Training(tmp_path, 2).run()
    again = Training(tmp_path, 2).run()
    assert again.iterations == first.iterations == [1, 2, 3, 4, 5, 6]


def test_without_a_file_training_starts_at_the_beginning(tmp_path):
    training = Training(tmp_path / "new", 1, resume=True).run()
    assert training.iterations == [1, 2, 3]
    assert training.last.path.is_file()


def test_two_files_are_kept_that_hold_plain_types(tmp_path):
    training = Training(tmp_path / "out", 3).run()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert torch.load(training.last.previous, weights_only=True)["trainer"]["iteration"] == 6
    saved = torch.load(training.last.path, weights_only=True)
    assert set(saved) == {"network", "optimizer", "schedule", "ema", "trainer"}
    assert saved["trainer"]["iteration"] == 9


def test_a_disk_that_is_full_leaves_the_file_before_it_and_says_how_to_go_on(tmp_path, caplog):
    training = Training(tmp_path / "parts", 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)  # no file can grow beyond it, as on a full disk
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # noqa: E731
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), full)
    try:
        with pytest.raises(OSError, match="File too large"):
            training.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert "training stopped in epoch 2; the same command with --resume True continues after epoch 1" in caplog.text
    whole, rest = Training(tmp_path / "whole", 3).run(), Training(tmp_path / "parts", 3, resume=True).run()
    assert rest.iterations == [4, 5, 6, 7, 8, 9]
    torch.testing.assert_close(rest.state(), whole.state(), rtol=0, atol=0)


def dying_save(kill):
    """Return a torch.save that takes the process with it at its n-th call."""
    save, calls = torch.save, []

    def dying(obj, file, *args, **kwargs):
        calls.append(file)
        if len(calls) == kill:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(obj, file, *args, **kwargs)

    return dying


@pytest.mark.parametrize("kills", [(1,), (2,), (2, 1, 3)], ids=str)
def test_a_save_that_is_killed_loses_nothing(tmp_path, kills):
    """Each process dies within its n-th save, with half of the file written."""
    for kill in kills:
        child = os.fork()
        if child == 0:
            torch.save = dying_save(kill)
            torch.set_num_threads(1)
            try:
                Training(tmp_path / "parts", 4, resume=True).run()
            finally:
                os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    whole, rest = Training(tmp_path / "whole", 4).run(), Training(tmp_path / "parts", 4, resume=True).run()
    torch.testing.assert_close(rest.state(), whole.state(), rtol=0, atol=0)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize(
    "other",
    [
        nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)),
        nn.Linear(1, 1),
        StreamlinedUNet(2, 1, 2, channels=(4,)),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_with_the_fix(tmp_path, other):
    Training(tmp_path, 1).run()
    with pytest.raises(ValueError, match=r"last\.ckpt does not fit what is trained .*choose another output folder"):
        Training(tmp_path, 2, resume=True, network=other).run()


def test_a_checkpoint_without_a_part_of_the_state_is_refused(tmp_path):
    training = Training(tmp_path, 1).run()
    saved = torch.load(training.last.path, weights_only=True)
    del saved["ema"]
    torch.save(saved, training.last.path)
    with pytest.raises(ValueError, match=r"does not fit what is trained .*ema"):
        Training(tmp_path, 2, resume=True).run()


@pytest.mark.parametrize("size", [0, 1, 500])
def test_a_damaged_file_is_named_and_the_one_before_it_used(tmp_path, size):
    whole = Training(tmp_path / "whole", 3).run()
    training = Training(tmp_path / "parts", 2).run()
    training.last.path.write_bytes(training.last.path.read_bytes()[:size])
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged"):
        rest = Training(tmp_path / "parts", 3, resume=True).run()
    assert rest.iterations == [4, 5, 6, 7, 8, 9]
    torch.testing.assert_close(rest.state(), whole.state(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_a_damaged_file_never_replaces_the_one_before_it(tmp_path):
    training = Training(tmp_path, 2).run()
    training.last.path.write_bytes(b"half")
    rest = Training(tmp_path, 3, resume=True).run()
    assert rest.iterations == [4, 5, 6, 7, 8, 9]
    for path, iteration in ((rest.last.previous, 6), (rest.last.path, 9)):
        assert torch.load(path, weights_only=True)["trainer"]["iteration"] == iteration


def test_the_gradient_scaler_is_kept_where_there_is_one(tmp_path):
    def start(epochs, scale, **options):
        training = Training(tmp_path, epochs, **options)
        # as MONAI's trainer does on a GPU: after the handlers were attached
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        training.trainer.scaler, run = None, training.trainer._fire_event

        def fire(event, *args):
            if event == Events.STARTED:
                training.trainer.scaler = scaler
            elif event == Events.EPOCH_STARTED:
                training.trainer.scaler = None  # the steps themselves stay those of a CPU
            return run(event, *args)

        training.trainer._fire_event = fire
        training.run()
        return scaler.get_scale()

    assert start(1, 8.0) == 8.0
    assert start(2, 2.0, resume=True) == 8.0
    Training(tmp_path / "plain", 1).run()
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes((tmp_path / "plain" / "last.ckpt").read_bytes())
    assert start(2, 2.0, resume=True) == 2.0  # a checkpoint of a CPU has none


def test_epochs_count_when_their_length_changes(tmp_path, monkeypatch):
    Training(tmp_path, 2).run()
    monkeypatch.setattr(f"{__name__}.BATCHES", BATCHES[:2])
    rest = Training(tmp_path, 4, resume=True).run()
    assert rest.iterations == [5, 6, 7, 8]
    assert rest.trainer.state.epoch == 4


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_without_a_whole_file_it_is_said(tmp_path):
    training = Training(tmp_path, 1).run()
    for path in (training.last.path, training.last.previous):
        path.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"previous\.ckpt is damaged .*start anew"):
        Training(tmp_path, 2, resume=True).run()
