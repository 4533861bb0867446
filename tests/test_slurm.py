"""The submit script, without SLURM: what it would submit, and what each job would run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARRAY = {"METHODS": "ssn mose", "SEEDS": "0 1 2", "FOLDS": "5", "OUT": "a b/study"}


def slurm(*arguments: str, **environment: str) -> list[list[str]]:
    """Return the commands that the script runs, with every word of theirs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    command = ["bash", str(ROOT / "scripts" / "slurm"), *arguments]
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
    return [line.split("|")[:-1] for line in done.stdout.splitlines()]


@pytest.fixture
def words(tmp_path: Path) -> str:
    """A program that prints its arguments, and is also found as srun; scontrol names two nodes."""
    for name, text in (
        ("words", "printf '%s|' \"$@\"; echo"),
        ("scontrol", "printf 'n7\\nn8\\n'"),
        ("srun", 'shift; exec "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return str(tmp_path / "words")


def test_one_job_for_each_method_seed_and_fold(words: str) -> None:
    ((export, array, script, *rest),) = slurm("lidc", "--lr", "0.1", SBATCH=words, **ARRAY)
    assert (export, array, script, rest) == ("--export=ALL", "--array=0-29", script, ["lidc", "--lr", "0.1"])
    assert Path(script).samefile(ROOT / "scripts" / "slurm")
    runs = [slurm("lidc", "--lr", "0.1", PYTHON=words, SLURM_ARRAY_TASK_ID=str(i), **ARRAY) for i in range(30)]
    expected = []
    for method in ("ssn", "mose"):
        for seed in range(3):
            for fold in range(5):
                own = [
                    "--bundle_root",
                    f"a b/study/{method}_s{seed}_f{fold}",
                    "--seed",
                    str(seed),
                    "--mlflow::study",
                    "study",
                ]
                shared = [method, "lidc", "--lr", "0.1", *own, "--data::folds", "5", "--data::fold", str(fold)]
                train = ["-m", "monai_flowssn", "train", *shared, "--resume", "True"]
                expected.append([train, ["-m", "monai_flowssn", "evaluate", *shared]])
    assert runs == expected


def test_several_nodes_meet_at_the_first(words: str) -> None:
    path = f"{Path(words).parent}{os.pathsep}{os.environ['PATH']}"
    job = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n[7-8]"}
    runs = slurm(PYTHON=words, PATH=path, SLURM_JOB_NUM_NODES="2", SLURM_GPUS_ON_NODE="4", **job)
    for run, (name, overlay) in zip(
        runs, (("train", "multi_gpu_train"), ("evaluate", "multi_gpu_evaluate")), strict=True
    ):
        assert run[:6] == ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "4"]
        assert run[run.index("--rdzv-endpoint") + 1] == "n7:29500"
        assert run[run.index("monai_flowssn") :][:4] == ["monai_flowssn", name, "ssn", overlay]


def test_a_job_is_a_command_of_monai() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment = {**clean, "SLURM_ARRAY_TASK_ID": "1", "SEEDS": "3 4", "PYTHON": sys.executable}
    command = ["bash", str(ROOT / "scripts" / "slurm"), "lidc_contours", "--show"]
    told = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    ).stderr.splitlines()
    assert [line.split()[4] for line in told] == ["training", "evaluating"]
    assert all(" --seed 4 " in line and "lidc_contours.yaml" in line for line in told)
