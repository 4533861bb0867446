"""Write docs/results.md and docs/results.json from the evaluation runs of an MLflow tracking server.

    python scripts/results.py --tracking_uri sqlite:///runs/mlflow.db --dataset_dir data/lidc --limit 400

Beside the methods stand the two references that every reader needs: the raters' own masks as draws, and the empty mask.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from monai.transforms import CenterSpatialCrop

from monai_flowssn.data import lidc
from monai_flowssn.metrics import PRESETS, bootstrap_interval, evaluate_preset

DOCS = Path(__file__).resolve().parent.parent / "docs"
METRICS = ["ged_v", "ged_u", "diversity_v", "hm_iou_duplicate", "hm_iou_best", "dice_majority", "nll", "ece_10"]


def read_runs(uri: str, experiment: str) -> dict[str, dict[str, Any]]:
    """Return the newest finished evaluation of every method."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise SystemExit(f"{uri} has no experiment {experiment!r}; evaluate a bundle with this tracking_uri first.")
    runs = client.search_runs([found.experiment_id], "attributes.status = 'FINISHED'", order_by=["start_time ASC"])
    methods = {}
    for run in runs:
        if any(name.startswith("test_") for name in run.data.metrics):
            with tempfile.TemporaryDirectory() as folder:
                path = client.download_artifacts(run.info.run_id, "per_case/per_case.csv", folder)
                with open(path, newline="") as file:
                    rows = list(csv.DictReader(file))
            methods[run.data.tags["method"]] = {"rows": rows, "params": run.data.params, "metrics": run.data.metrics}
    return methods


def summarise(rows: list[dict[str, str]]) -> dict[str, list[float]]:
    """Return mean, low and high of every metric."""
    patients = [row["patient"] for row in rows]
    names = [name for name in rows[0] if name not in ("case", "patient")]
    return {
        name: list(bootstrap_interval(torch.tensor([float(row[name]) for row in rows]), patients)) for name in names
    }


def references(items: list[dict[str, Any]], size: int) -> dict[str, dict[str, list[float]]]:
    """Return the metrics of the raters' own masks and of the empty mask as draws."""
    crop = CenterSpatialCrop([size, size])
    raters = torch.stack([crop(item["label"]).as_tensor() for item in items]).long()
    patients = [item["patient"] for item in items]
    table = {}
    for name, draws in {"raters as draws": raters, "empty mask": torch.zeros_like(raters)}.items():
        values = evaluate_preset("standard", draws, raters)
        table[name] = {metric: list(bootstrap_interval(value, patients)) for metric, value in values.items()}
    return table


def cell(interval: list[float] | None) -> str:
    """Format one interval."""
    return "-" if interval is None else "{:.3f} [{:.3f}, {:.3f}]".format(*interval)


def table_of(columns: dict[str, dict[str, list[float]]], names: list[str]) -> str:
    """Return a Markdown table: a row per metric, a column per method."""
    lines = ["| metric | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(cell(values.get(name)) for values in columns.values()) + " |" for name in names
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking_uri", required=True)
    parser.add_argument("--experiment", default="monai_flowssn")
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--limit", type=int, help="the limit that the evaluations used")
    parser.add_argument("--size", type=int, default=64, help="edge of the centre crop that the evaluations used")
    arguments = parser.parse_args()
    methods = read_runs(arguments.tracking_uri, arguments.experiment)
    results = {name: summarise(run["rows"]) for name, run in methods.items()}
    items = lidc(arguments.dataset_dir, "test", limit=arguments.limit)
    print(sorted(PRESETS), len(items), list(results))
    summary = {"methods": results, "references": references(items, arguments.size)}
    DOCS.mkdir(exist_ok=True)
    (DOCS / "results.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
