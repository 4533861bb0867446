"""Write docs/results.md and docs/results.json from the evaluation runs of an MLflow tracking server.

    python scripts/results.py --tracking_uri sqlite:///runs/mlflow.db --dataset_dir data/lidc --limit 400

One column per method (its newest finished evaluation) and two references that every reader needs: the raters' own masks as
draws, and the empty mask. Intervals are bootstrapped over patients; differences to the first method are paired by case.
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
from torch.nn.functional import one_hot

from monai_flowssn.data import lidc
from monai_flowssn.metrics import bootstrap_interval, evaluate_preset, paired_difference

DOCS = Path(__file__).resolve().parent.parent / "docs"
Table = dict[str, dict[str, Any]]

TEXT = """# Results

Real LIDC-IDRI, `test` group: {cases} cases of {patients} patients, {size}x{size} centre crops, four radiologists. Written by
`scripts/results.py` from logged runs. Foreground only; two empty masks have IoU 1; `_v` counts the distance of a draw to
itself (as papers do), `_u` does not; `_nN` is the number of draws. Brackets: 95 % bootstrap interval over patients. NLL in nats
per case, probabilities clamped at 1e-6.

{methods}

Parameters and training: {training}.

## References

What the raters' own four masks score as draws, and what a model that never marks anything scores. (`ged_u` of the raters is
below 0: draws that are the raters themselves are no independent sample.)

{references}
"""


def read_runs(uri: str, experiment: str) -> dict[str, Any]:
    """Return the newest finished evaluation of every method, with its table of cases."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise SystemExit(f"{uri} has no experiment {experiment!r}; evaluate a bundle with this tracking_uri first.")
    runs = client.search_runs([found.experiment_id], "attributes.status = 'FINISHED'", order_by=["start_time ASC"])
    methods = {}
    for run in runs:
        if run.data.tags.get("data") == "lidc" and any(name.startswith("test_") for name in run.data.metrics):
            with tempfile.TemporaryDirectory() as folder:
                path = client.download_artifacts(run.info.run_id, "per_case/per_case.csv", folder)
                with open(path, newline="") as file:
                    rows = list(csv.DictReader(file))
            methods[run.data.tags["method"]] = {"rows": rows, "params": run.data.params}
    return methods


def column(rows: list[dict[str, str]], name: str) -> torch.Tensor:
    """Return one metric of all cases."""
    return torch.tensor([float(row[name]) for row in rows])


def summarise(methods: dict[str, Any]) -> Table:
    """Return mean, low and high of every metric of every method."""
    table = {}
    for method, run in methods.items():
        patients = [row["patient"] for row in run["rows"]]
        names = list(run["rows"][0])[2:]
        table[method] = {name: tuple(bootstrap_interval(column(run["rows"], name), patients)) for name in names}
    return table


def differences(methods: dict[str, Any]) -> Table:
    """Return the paired differences of every further method to the first."""
    first, *others = methods
    rows = methods[first]["rows"]
    patients = [row["patient"] for row in rows]
    table = {}
    for other in others:
        theirs = methods[other]["rows"]
        if [row["case"] for row in theirs] == [row["case"] for row in rows]:
            pairs = {
                name: (column(theirs, name), column(rows, name)) for name in list(rows[0])[2:] if name in theirs[0]
            }
            table[f"{other} - {first}"] = {
                name: tuple(paired_difference(*pair, patients)) for name, pair in pairs.items()
            }
    return table


def references(items: list[dict[str, Any]], size: int) -> Table:
    """Return the metrics of the raters' own masks and of the empty mask as draws."""
    crop = CenterSpatialCrop([size, size])
    raters = torch.stack([crop(item["label"]).as_tensor() for item in items]).long()
    patients = [item["patient"] for item in items]
    table = {}
    for name, draws in {"raters as draws (N = 4)": raters, "empty mask (N = 4)": torch.zeros_like(raters)}.items():
        soft = one_hot(draws, 2).movedim(-1, 2).float()  # (B, N, K, *S)
        values = evaluate_preset("standard", draws, raters, pred=soft)
        table[name] = {metric: tuple(bootstrap_interval(value, patients)) for metric, value in values.items()}
    return table


def markdown(table: Table) -> str:
    """Return a row per metric and a column per entry of the table."""
    names = list(dict.fromkeys(name for values in table.values() for name in values))
    cells = {
        key: ["{:.3f} [{:.3f}, {:.3f}]".format(*values[name]) if name in values else "-" for name in names]
        for key, values in table.items()
    }
    lines = ["| metric | " + " | ".join(table) + " |", "|---" * (len(table) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(column[row] for column in cells.values()) + " |" for row, name in enumerate(names)
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking_uri", required=True)
    parser.add_argument("--experiment", default="monai_flowssn")
    parser.add_argument("--dataset_dir", required=True, help="LIDC, as in configs/data/lidc.yaml")
    parser.add_argument("--limit", type=int, help="the limit that the evaluations used")
    parser.add_argument("--size", type=int, default=64, help="edge of the centre crop that the evaluations used")
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    methods = read_runs(arguments.tracking_uri, arguments.experiment)
    if not methods:
        raise SystemExit(
            f"{arguments.tracking_uri} has no finished evaluation on lidc; run `evaluating` with it first."
        )
    items = lidc(arguments.dataset_dir, "test", limit=arguments.limit)
    summary = {
        "methods": summarise(methods),
        "differences": differences(methods),
        "references": references(items, arguments.size),
        "params": {method: run["params"] for method, run in methods.items()},
    }
    text = TEXT.format(
        cases=len(items),
        patients=len({item["patient"] for item in items}),
        size=arguments.size,
        methods=markdown({**summary["methods"], **summary["differences"]}),
        training="; ".join(
            f"{method}: {run['params'].get('parameters_total', '?')} parameters" for method, run in methods.items()
        ),
        references=markdown(summary["references"]),
    )
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(summary, indent=1) + "\n")
    (arguments.out / "results.md").write_text(text)


if __name__ == "__main__":
    main()
