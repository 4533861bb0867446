"""A real MLflow server: HTTP, a database, artifacts through it; killed and started again half-way through a training."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from tiny_scales import tiny_scale

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 120  # in which a server has to answer

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI, ignite and MLflow warn about themselves


class Server:
    """`mlflow server` on loopback, whose runs are in a database and whose artifacts go through it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        stores = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        stores += ["--artifacts-destination", str(self.folder / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", *stores, "--port", str(self.port), "--workers", "1"]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise TimeoutError((self.folder / "log.txt").read_text()[-2000:])

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    yield made
    made.kill()


def test_what_a_training_and_its_uses_tell_a_server(server: Server, tiny_options: dict, tmp_path: Path) -> None:
    def workflow(file: str, **options: object) -> ConfigWorkflow:
        bundle = ROOT / "bundles" / "ssn_segmentation" / "configs"
        kind = "train" if file == "train" else "inference"
        options = {**tiny_scale("ssn"), **tiny_options, "data::folds": 3, "data::fold": 1, "seed": 5, **options}
        made = ConfigWorkflow(str(bundle / f"{file}.yaml"), workflow_type=kind, logging_file=False, **options)
        made.initialize()
        return made

    training = workflow("train", **{"max_epochs": 4, "mlflow::loss_every": 1, "train::optimizer::lr": 0.02})
    trainer = training.parser.get_parsed_content("train::trainer")
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda: server.kill())
    trainer.add_event_handler(Events.EPOCH_STARTED(once=4), lambda: server.start())
    with pytest.warns(UserWarning, match="going on without it"):
        training.run()
    workflow("evaluate").run()
    workflow("inference", limit=1).run()

    client = mlflow.MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("monai_flowssn")
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    found = {
        each.info.run_name: client.get_run(each.info.run_id) for each in client.search_runs([experiment.experiment_id])
    }
    study, train = found["ssn-lidc-3-folds"], found["ssn-lidc-s5-f1"]
    used = [found["ssn-lidc-s5-f1-evaluate"], found["ssn-lidc-s5-f1-inference"]]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert train.data.tags["mlflow.parentRunId"] == study.info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in used} == {study.info.run_id}
    assert {run.data.tags["training"] for run in used} == {train.info.run_id}
    assert {run.data.tags["checkpoint"] for run in used} == {train.data.tags["checkpoint"]}
    assert {run.inputs.model_inputs[0].model_id for run in used} == {train.outputs.model_outputs[-1].model_id}

    # what the outage held back, and what the network was really trained with
    losses = client.get_metric_history(train.info.run_id, "train_loss")
    assert [point.step for point in losses] == list(range(1, 1 + trainer.state.iteration))
    assert train.data.params["lr"] == "0.02"
    assert "eval_draws" not in train.data.params
    names = [each.dataset.name for each in train.inputs.dataset_inputs]
    assert sorted(names) == ["lidc-train", "lidc-val"]

    for run in used:
        panels = client.list_artifacts(run.info.run_id, "panels")
        assert len(panels) == (4 if "evaluate" in run.info.run_name else 1)
        note = run.data.tags["mlflow.note.content"]
        assert note.startswith("Uses the weights of the training [ssn-lidc-s5-f1](")
        address = note.partition("](get-artifact")[2].partition(")")[0]
        with urllib.request.urlopen(f"{server.uri}/get-artifact{address}", timeout=30) as picture:
            assert picture.read(4) == b"\x89PNG"
    mlflow.set_tracking_uri(server.uri)
    try:
        model = mlflow.pyfunc.load_model(f"runs:/{train.info.run_id}/model")
    finally:
        mlflow.set_tracking_uri(None)
    image = np.linspace(0, 255, 2 * 16 * 16, dtype=np.float32).reshape(2, 1, 16, 16)
    answer = model.predict(image, params={"draws": 5})
    shapes = {"mean": (2, 1, 16, 16), "draws": (2, 5, 16, 16), "entropy": (2, 1, 16, 16)}
    assert {name: values.shape for name, values in answer.items()} == {**shapes, "mutual_information": (2, 1, 16, 16)}
    for name, values in model.predict(image, params={"draws": 5, "seed": 0}).items():
        np.testing.assert_array_equal(values, answer[name])
    assert model.metadata.signature.outputs.input_names() == list(answer)
