"""Runs that belong together, against one database."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from monai_flowssn.handlers import mlflow_links as links


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('links')}/mlflow.db")


@pytest.fixture
def experiment(client: MlflowClient, request: pytest.FixtureRequest) -> str:
    return client.create_experiment(request.node.name)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="other systems do not tell when one began")


@needs_proc
def test_a_name_is_that_of_one_process_alone() -> None:
    own = links.process_name(os.getpid())
    assert own == links.process_name(os.getpid())
    assert own != links.process_name(os.getppid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert links.process_name(other.pid).split()[-2] == str(other.pid)
        other.communicate(b"\n")
    assert links.process_name(other.pid) is None


@needs_proc
def test_a_run_whose_process_is_gone_ends_when_it_last_told_something(client: MlflowClient, experiment: str) -> None:
    own = links.process_name(os.getpid())
    machine, pid, started = own.rsplit(" ", 2)
    reused = f"{machine} {pid} {int(started) - 1}"  # the number of a process that began earlier
    told = int(time.time() * 1000) + 5000
    ids = {}
    for name in (own, reused, f"{machine} 4194399 1", f"elsewhere {pid} 1", None):
        ids[name] = client.create_run(experiment, tags={} if name is None else {links.PROCESS: name}).info.run_id
        client.log_metric(ids[name], "loss", 1.0, timestamp=told)
    links.close_left_behind(client, experiment)
    found = {name: client.get_run(run_id).info for name, run_id in ids.items()}
    closed = [name for name, info in found.items() if info.status == "KILLED"]
    assert closed == [reused, f"{machine} 4194399 1"]
    assert {found[name].end_time for name in closed} == {told}
    assert {found[name].status for name in found if name not in closed} == {"RUNNING"}


def test_all_runs_of_a_study_stand_under_one(client: MlflowClient, experiment: str) -> None:
    first = links.study_run(client, experiment, "ssn's folds")
    assert links.study_run(client, experiment, "ssn's folds") == first
    assert links.study_run(client, experiment, "other") != first
    assert client.get_run(first).info.status == "FINISHED"


def test_the_newest_training_of_the_weights_is_found(client: MlflowClient, experiment: str) -> None:
    made = [
        client.create_run(experiment, start_time=start, tags={"run": run, links.CHECKPOINT: weights}).info.run_id
        for start, run, weights in ((1, "train", "a"), (2, "train", "a"), (3, "evaluate", "a"), (4, "train", "b"))
    ]
    assert links.training_of(client, experiment, "a").info.run_id == made[1]
    assert links.training_of(client, experiment, "c") is None


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert links.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_mlflow_names_are_those_of_its_pages() -> None:
    assert links.PARENT == mlflow.utils.mlflow_tags.MLFLOW_PARENT_RUN_ID
    assert links.NOTE == mlflow.utils.mlflow_tags.MLFLOW_RUN_NOTE


def test_the_source_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/usr/bin/python", "-m", "monai.bundle", "run", "--config_file", "['a b/c.yaml','/d/e.yaml']", "--lr=1"]
    monkeypatch.setattr(sys, "orig_argv", words)
    tags = links.source_tags()
    assert shlex.split(tags["command"]) == ["python", *words[1:]]
    assert tags["mlflow.source.name"] == "python -m monai.bundle run --config_file ['a c.yaml','e.yaml'] --lr=1"
