"""Trainings that are killed, and trainings in several processes: the same in the end as one that was left in peace."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from monai.bundle import run
from PIL import Image
from tiny_scales import tiny_scale

from monai_flowssn.transforms import RandDihedrald

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI, ignite and MLflow warn about themselves

# runs a training that dies, without a word, at the n-th call of an optimiser's step or of torch.save
MORTAL = """
import json, os, signal, sys, torch
from monai.bundle import run
where, n, config, options = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
calls = 0
def mortal(function):
    def called(*args, **kwargs):
        global calls
        calls += 1
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return called
if where == "step":
    torch.optim.AdamW.step = mortal(torch.optim.AdamW.step)
if where == "save":
    torch.save = mortal(torch.save)
run("training", config_file=config, **options)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Several threads sum in another order than the one of the processes started here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def configs(method: str, *names: str) -> str:
    folder = ROOT / "bundles" / f"{method}_segmentation" / "configs"
    return str([str(folder / f"{name}.yaml") for name in names])


def tiny(method: str, options: dict) -> dict:
    """The options of a tiny training."""
    return {**tiny_scale(method), **options, "validate::inferer::n": 3}


def call(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def tracked(folder: Path) -> list[tuple[str, dict[str, dict[int, float]]]]:
    """Return state and history of all metrics of every MLflow run."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("monai_flowssn")
    found = []
    for each in client.search_runs([experiment.experiment_id]):
        history = {name: client.get_metric_history(each.info.run_id, name) for name in each.data.metrics}
        steps = {name: {point.step: point.value for point in points} for name, points in history.items()}
        found.append((each.info.status, steps))
    return found


def test_a_training_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    tiny_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file = configs("flowssn_continuous", "train")[2:-2]
    options = {
        **tiny("flowssn_continuous", tiny_options),
        "max_epochs": 4,
        "resume": True,
        "optimisation::early_stop_patience": 9,
    }
    options["network_def::base::dropout"] = 0.2
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("training", config_file=file, **{**options, "bundle_root": str(whole)})

    # in the first epoch; while it writes last.ckpt, model.pt already being new; in the second epoch; not
    text = json.dumps({**options, "bundle_root": str(killed)})
    for where, n in (("step", 2), ("save", 3), ("step", 5)):
        done = call("-c", MORTAL, where, str(n), file, text)
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    done = call("-c", MORTAL, "nowhere", "0", file, text)
    assert done.returncode == 0, done.stderr[-3000:]

    for name in ("last.ckpt", "model.pt"):
        one, other = (torch.load(folder / "models" / name, weights_only=True) for folder in (whole, killed))
        for state in (one, other):
            state.pop("mlflow", None), state.pop("budget", None)  # the id of the run, and the seconds it took
        torch.testing.assert_close(other, one, rtol=0, atol=0)
    assert tracked(killed) == tracked(whole)
    assert [status for status, _ in tracked(killed)] == ["FINISHED"]


def test_a_worker_that_dies_costs_no_finished_epoch(
    tiny_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    augment, last = RandDihedrald.__call__, tmp_path / "models" / "last.ckpt"

    def dying(self: RandDihedrald, item: dict) -> dict:
        if last.is_file() and torch.load(last, weights_only=True)["trainer"]["iteration"] > 0:  # in the second epoch
            os.kill(os.getpid(), signal.SIGKILL)
        return augment(self, item)

    file = configs("unet", "train")[2:-2]
    options = {**tiny("unet", tiny_options), "max_epochs": 2, "train::dataloader::num_workers": 2, "resume": True}
    monkeypatch.setattr(RandDihedrald, "__call__", dying)
    with pytest.raises(RuntimeError) as error:  # MONAI's, around it
        run("training", config_file=file, **options)
    monkeypatch.setattr(RandDihedrald, "__call__", augment)
    assert "DataLoader worker" in str(error.value.__cause__)
    assert (
        "training stopped in epoch 2; the same command with --resume True continues after epoch 1"
        in capfd.readouterr().err
    )
    assert [status for status, _ in tracked(tmp_path)] == ["FAILED"]
    run("training", config_file=file, **options)
    assert torch.load(last, weights_only=True)["trainer"]["iteration"] == 6
    ((status, metrics),) = tracked(tmp_path)
    assert status == "FINISHED"
    assert set(metrics["val_ged_v_n3"]) == {1, 2}


def test_a_file_that_is_damaged_during_training_is_named_and_costs_no_finished_epoch(
    tiny_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    generator = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(generator.integers(0, 255, (16, 16), np.uint8)).save(tmp_path / f"image{i}.png")
        Image.fromarray(generator.integers(0, 2, (16, 16), np.uint8)).save(tmp_path / f"mask{i}.png")
    entries = [{"image": f"image{i}.png", "label": [f"mask{i}.png"]} for i in range(4)]
    (tmp_path / "data.json").write_text(json.dumps({"training": entries[:3], "validation": entries[3:]}))
    pictures = {path: path.read_bytes() for path in tmp_path.glob("image[012].png")}
    augment, last = RandDihedrald.__call__, tmp_path / "models" / "last.ckpt"

    def damaging(self: RandDihedrald, item: dict) -> dict:
        if last.is_file() and torch.load(last, weights_only=True)["trainer"]["iteration"] > 0:  # in the second epoch
            for path, content in pictures.items():
                path.write_bytes(content[:40])
        return augment(self, item)

    file = [configs("unet", "train")[2:-2], str(ROOT / "configs" / "data" / "datalist.yaml")]
    options = {**tiny("unet", tiny_options), "datalist_file": str(tmp_path / "data.json"), "batch_size": 1}
    options |= {"train::dataset::cache_rate": 0.0, "data::raters": 1, "max_epochs": 2, "resume": True}
    del options["dataset_dir"]
    with monkeypatch.context() as patch:
        patch.setattr(RandDihedrald, "__call__", damaging)
        with pytest.raises(RuntimeError) as error:  # MONAI's, around ours
            run("training", config_file=file, **options)
    assert ".png does not decode" in str(error.value.__cause__.__cause__)
    told = capfd.readouterr().err
    assert "training stopped in epoch 2; the same command with --resume True continues after epoch 1" in told
    assert [status for status, _ in tracked(tmp_path)] == ["FAILED"]
    for path, content in pictures.items():
        path.write_bytes(content)
    run("training", config_file=file, **options)
    assert torch.load(last, weights_only=True)["trainer"]["iteration"] == 6
    ((status, metrics),) = tracked(tmp_path)
    assert status == "FINISHED"
    assert set(metrics["val_ged_v_n3"]) == {1, 2}


def read_cases(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs" / "evaluate" / "per_case.csv").open() as file:
        return list(csv.DictReader(file))


def test_two_processes_are_as_good_as_one(tiny_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise the trainings are equal; with noise the evaluations are. Five cases: the last batch is uneven."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    one, two = tmp_path / "one", tmp_path / "two"
    options = {
        **tiny("unet", tiny_options),
        "data::augmentation": [],
        "max_epochs": 2,
        "val_limit": 5,
    }  # an odd one out
    options["train::dataset::data"] = "$@data.items('train', 5)"
    options |= {"train::inferer::autocast": False, "mlflow::loss_every": 1}  # rounding to bfloat16 depends on the batch
    options["lr"] = (
        0.001  # Adam's first steps are of its size, in a direction that rounding decides where a gradient is almost 0
    )
    run("training", config_file=configs("unet", "train")[2:-2], **{**options, "bundle_root": str(one)})
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run"]
    options |= {"bundle_root": str(two), "batch_size": 1}
    overrides = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    done = call(*torchrun, "training", "--config_file", configs("unet", "train", "multi_gpu_train"), *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = [torch.load(folder / "models" / "last.ckpt", weights_only=True)["network"] for folder in (one, two)]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-4)  # a step of Adam is 0.001
    ((status, expected),), ((_, metrics),) = tracked(one), tracked(two)
    assert status == "FINISHED"
    assert metrics["val_ged_v_n3"] == pytest.approx(expected["val_ged_v_n3"], abs=1e-4)
    assert len(metrics["train_loss"]) == 4
    assert metrics["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-4)

    method = "flowssn_continuous"
    run(
        "training",
        config_file=configs(method, "train")[2:-2],
        **{**tiny(method, tiny_options), "bundle_root": str(one)},
    )
    options = {**tiny_options, **tiny_scale(method), "limit": 5, "model_path": str(one / "models" / "model.pt")}
    run("evaluating", config_file=configs(method, "evaluate")[2:-2], **{**options, "bundle_root": str(one)})
    overrides = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    overrides += ["--bundle_root", str(two)]
    done = call(*torchrun, "evaluating", "--config_file", configs(method, "evaluate", "multi_gpu_evaluate"), *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    expected, found = read_cases(one), read_cases(two)
    assert [row["case"] for row in found] == [row["case"] for row in expected]
    for row, other in zip(expected, found):
        for name in set(row) - {"case", "patient"}:
            assert float(other[name]) == pytest.approx(float(row[name]), abs=1e-4), name
