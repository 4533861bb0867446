"""From a data set to the page of results, the way a user does it."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI, ignite and MLflow warn about themselves


def compare(data: Path, folder: Path, *methods: str) -> subprocess.CompletedProcess:
    settings = {"SECONDS_EACH": "1", "LIMIT": "4", "OUT": str(folder / "runs"), "DOCS": str(folder / "docs")}
    return subprocess.run(
        [ROOT / "scripts/compare", data, *methods],
        env={**os.environ, **settings, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        check=False,
    )


def test_compare_trains_evaluates_and_reports(tiny_lidc: Path, tmp_path: Path) -> None:
    done = compare(tiny_lidc, tmp_path, "unet")
    assert done.returncode == 0, done.stderr[-3000:]
    page = tmp_path / "docs" / "results.md"
    assert (tmp_path / "docs" / "ged_and_draws.png").stat().st_size > 10_000
    summary = json.loads((tmp_path / "docs" / "results.json").read_text())
    assert set(summary["methods"]) == {"unet"}
    table = tmp_path / "runs" / "eval_unet" / "per_case.csv"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for name, (mean, low, high) in summary["methods"]["unet"].items():
        assert mean == pytest.approx(sum(float(row[name]) for row in rows) / 4), name
        assert low <= mean <= high, name
    assert summary["cost"][0]["parameters"] > 0
    assert "4 cases of 3 patients" in page.read_text()

    # a second call does nothing anew, takes a method from elsewhere in, and keeps what a person wrote
    page.write_text(page.read_text().replace("<!-- notes -->", "<!-- notes -->\nWritten by hand.\n"))
    before = table.stat().st_mtime_ns
    results = load_results()
    results(tmp_path, tiny_lidc, "--limit", "4", "--beside", f"elsewhere={table}")
    assert table.stat().st_mtime_ns == before
    assert "Written by hand." in page.read_text()
    differences = json.loads((tmp_path / "docs" / "results.json").read_text())["differences"]["elsewhere"]
    assert all(value == [0, 0, 0] for value in differences.values())

    with pytest.raises(SystemExit, match="was evaluated on other cases than --limit 3 gives"):
        results(tmp_path, tiny_lidc, "--limit", "3")


def load_results():
    """Return the command line of scripts/results.py as a function."""
    spec = importlib.util.spec_from_file_location("results", ROOT / "scripts/results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(folder: Path, data: Path, *options: str) -> None:
        uri = f"sqlite:///{folder}/runs/mlflow.db"
        with pytest.MonkeyPatch.context() as patch:
            arguments = ["results.py", "--tracking_uri", uri, "--dataset_dir", str(data), "--out", str(folder / "docs")]
            patch.setattr("sys.argv", [*arguments, *options])
            module.main()

    return call
