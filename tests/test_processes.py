"""Evaluation and inference over processes: on two nodes (of loopback), and where a worker is killed on the way."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import mlflow
import nibabel
import numpy as np
import pytest
from monai.bundle import run
from tiny_scales import tiny_scale

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundles" / "ssn_segmentation" / "configs"
pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI, ignite and MLflow warn about themselves

WORKER = """
import json, os, signal, sys
from monai.bundle import run
from monai_flowssn.inferers import DrawInferer, MapInferer
workflow, files, options = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
drawn = 0
def mortal(call):
    def called(*arguments, **named):
        global drawn
        drawn += 1  # the last process dies in its second batch, once
        if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"], drawn) == ("1", "0", 2):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return called
for kind in (DrawInferer, MapInferer):
    kind.__call__ = mortal(kind.__call__)
run(workflow, config_file=files, **options)
"""


def start(node: list[str], folder: Path, workflow: str, file: str, options: dict) -> subprocess.Popen:
    (folder / "worker.py").write_text(WORKER)
    files = json.dumps([str(BUNDLE / f"{name}.yaml") for name in (file, f"multi_gpu_{file}")])
    command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "1", "--monitor-interval", "0.1", *node]
    command += [str(folder / "worker.py"), workflow, files, json.dumps(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # torch 2.13 keeps the addresses of workers that are gone
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, env=environment, stderr=log, stdout=log)


def check_ends(nodes: list[subprocess.Popen], folder: Path) -> None:
    """Every node ends well, after a worker was killed."""
    try:
        for node in nodes:
            node.wait(timeout=280)
    finally:
        for node in nodes:
            node.terminate()  # torchrun ends its workers
    told = (folder / "log.txt").read_text()
    assert [node.returncode for node in nodes] == [0] * len(nodes), told[-6000:]
    assert "exitcode: -9" in told or "SIGKILL" in told, told[-6000:]


@pytest.fixture
def trained(tiny_options: dict, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The options of a tiny model that has been trained."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    options = {**tiny_scale("ssn"), **tiny_options}
    run("training", config_file=str(BUNDLE / "train.yaml"), **options, **{"validate::inferer::n": 2})
    return {**options, "limit": 5, "batch_size": 1}  # an odd one out


def test_a_killed_worker_of_two_nodes_costs_no_case_and_doubles_none(trained: dict, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run("inference", config_file=str(BUNDLE / "inference.yaml"), **trained, output_dir=str(one))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    nodes = [start(meet, tmp_path, "inference", "inference", {**trained, "output_dir": str(two)}) for _ in range(2)]
    check_ends(nodes, tmp_path)

    maps = sorted(path.relative_to(one) for path in one.rglob("*.nii.gz"))
    assert len(maps) == 5 * 6
    assert sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file()) == sorted(
        path.relative_to(one) for path in one.rglob("*") if path.is_file()
    )
    for path in maps:  # the draws of a case are its own, in whatever process
        np.testing.assert_allclose(
            nibabel.load(two / path).get_fdata(), nibabel.load(one / path).get_fdata(), atol=1e-5
        )


def test_a_killed_worker_of_an_evaluation_leaves_every_case_once(trained: dict, tmp_path: Path) -> None:
    def rows(folder: Path) -> list[dict[str, str]]:
        with (folder / "per_case.csv").open() as file:
            return list(csv.DictReader(file))

    one, two = tmp_path / "one", tmp_path / "two"
    run("evaluating", config_file=str(BUNDLE / "evaluate.yaml"), **trained, output_dir=str(one))
    options = {**trained, "output_dir": str(two)}
    check_ends(
        [start(["--standalone", "--nproc-per-node", "2"], tmp_path, "evaluating", "evaluate", options)], tmp_path
    )
    assert [row["case"] for row in rows(two)] == [row["case"] for row in rows(one)]
    for row, other in zip(rows(one), rows(two)):
        for name in set(row) - {"case", "patient"}:
            assert float(other[name]) == pytest.approx(float(row[name]), abs=1e-4), name
    assert len(list((two / "panels").rglob("*_panel.png"))) == 4
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("monai_flowssn")
    runs = client.search_runs([experiment.experiment_id], "tags.run = 'evaluate'", order_by=["start_time DESC"])
    # the one that was killed may have come so far as to have a run
    assert [each.info.status for each in runs if each.info.status != "KILLED"] == ["FINISHED", "FINISHED"]
