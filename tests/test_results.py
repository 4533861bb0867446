"""From a data set to the page of results, the way a user does it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def compare(data: Path, out: Path, *methods: str) -> subprocess.CompletedProcess:
    settings = {"CPU_SECONDS": "1", "LIMIT": "4", "OUT": str(out), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [ROOT / "scripts/compare", data, *methods],
        env={**os.environ, **settings},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        check=False,
    )


def test_compare_trains_evaluates_and_reports(tiny_lidc: Path, tmp_path: Path) -> None:
    done = compare(tiny_lidc, tmp_path, "ssn")
    assert done.returncode == 0, done.stderr[-3000:]
    page, results = tmp_path / "docs" / "results.md", tmp_path / "results"
    assert (tmp_path / "docs" / "ged_and_seconds.png").stat().st_size > 10_000
    assert "4 slices of 3 patients" in page.read_text()
    facts = json.loads((results / "ssn_s0.json").read_text())
    assert facts["method"] == "ssn"
    with (results / "ssn_s0.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("test_ged_u_n100", "test_hm_iou_duplicate_n100"):
        mean, low, high = facts["test"][name]
        assert mean == pytest.approx(sum(float(row[name]) for row in rows) / 4, abs=1e-4)
        assert low <= mean <= high

    # a second call does nothing anew, takes a run from elsewhere in, and keeps what a person wrote
    page.write_text(page.read_text().replace("<!-- notes -->", "<!-- notes -->\nWritten by hand.\n"))
    (results / "elsewhere_s0.json").write_text(json.dumps({**facts, "run": "elsewhere_s0", "method": "elsewhere"}))
    (results / "elsewhere_s0.csv").write_text((results / "ssn_s0.csv").read_text())
    before = (results / "ssn_s0.csv").stat().st_mtime_ns
    assert compare(tiny_lidc, tmp_path, "ssn").returncode == 0
    assert (results / "ssn_s0.csv").stat().st_mtime_ns == before
    assert "Written by hand." in page.read_text()
    assert "| elsewhere | 0.000 [0.000, 0.000] |" in page.read_text()

    # other cases are not compared
    (results / "elsewhere_s0.csv").write_text("\n".join((results / "ssn_s0.csv").read_text().splitlines()[:-1]))
    refused = compare(tiny_lidc, tmp_path, "ssn")
    assert refused.returncode != 0
    assert "was evaluated on other cases than" in refused.stderr
