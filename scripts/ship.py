"""Put a trained model into its bundle, with its numbers and its card.

    python scripts/ship.py RUN BUNDLE --dataset_dir data/lidc.hdf5 [--name ssn_finished_s0]
    python scripts/ship.py --cards

RUN is the ``--bundle_root`` of a finished training on LIDC-IDRI with the options of the bundle. Its weights, rounded to bfloat16,
go to BUNDLE/models/model.pt and are evaluated as they are shipped; what is known of them goes to models/shipped.json, the model
card to docs/, the table of cases to docs/runs/NAME.csv. The second form writes all cards anew from what is known.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from monai.bundle import run as run_workflow

from monai_flowssn.reports.runs import Run, read_table
from monai_flowssn.shipped import embedded_score, load_shipped

ROOT = Path(__file__).resolve().parent.parent
TEST = {"split": "test", "limit": 400, "eval_draws": 100, "presets": ["extended"]}

CARD = ROOT / "configs" / "model_card.md"
LICENSE = ROOT / "configs" / "data" / "lidc_license.txt"  # of the data; ours is that of the repository
FINISHED = (
    "the last {share:.0%} on the kernel score of draws, the distance that GED evaluates, so look at the others too"
)


def ship(run: Path, bundle: Path, dataset_dir: str, name: str) -> None:
    """Write the weights of a run into a bundle, and what is known of them."""
    source, target = run / "models" / "model.pt", bundle / "models" / "model.pt"
    state = torch.load(source, map_location="cpu", weights_only=True)
    target.parent.mkdir(exist_ok=True)
    torch.save({key: value.bfloat16() if value.is_floating_point() else value for key, value in state.items()}, target)
    out = run / "runs" / "shipped"
    run_workflow(
        "evaluating",
        config_file=str(bundle / "configs" / "evaluate.yaml"),
        bundle_root=str(run),
        model_path=str(target),
        output_dir=str(out),
        dataset_dir=dataset_dir,
        **TEST,
    )
    with tempfile.TemporaryDirectory() as folder:
        check = embedded_score(load_shipped(bundle), folder)
    facts = {**facts_of(run), "sha256": hashlib.sha256(target.read_bytes()).hexdigest(), "run": name, "check": check}
    facts["parameters"] = sum(value.numel() for key, value in load_shipped(bundle).named_parameters())
    table = read_table(out / "per_case.csv")
    result = Run(name, (table,))
    facts["cases"], facts["patients"] = len(table.cases), len(set(table.patients))
    facts["test"] = {metric: [round(v, 4) for v in result.interval(metric)] for metric in result.metrics}
    (bundle / "models" / "shipped.json").write_text(json.dumps(facts, indent=1) + "\n")
    write_cases(out / "per_case.csv", ROOT / "docs" / "runs" / f"{name}.csv")


def facts_of(run: Path) -> dict[str, Any]:
    """Return what the newest training of a run tells of itself."""
    last = torch.load(run / "models" / "last.ckpt", map_location="cpu", weights_only=True)
    client = MlflowClient(f"sqlite:///{run}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("monai_flowssn")
    trainings = client.search_runs([experiment.experiment_id], "tags.run = 'train'", order_by=["start_time DESC"])
    params = trainings[0].data.params
    return {
        "finish": float(params["finish"]),
        "seed": int(params["seed"]),
        "batch_size": int(params["batch_size"]),
        "commit": params.get("git_commit", "unknown"),
        "cpu_seconds": round(last["budget"]["cpu_spent"]),
        "steps": last["trainer"]["iteration"],
    }


def write_cases(source: Path, target: Path) -> None:
    """Copy a table of cases with four digits behind the point."""
    with source.open(newline="") as file:
        header, *rows = csv.reader(file)
    target.parent.mkdir(exist_ok=True)
    with target.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(
            [*row[:2], *(f"{float(value):.4f}".rstrip("0").rstrip(".") for value in row[2:])] for row in rows
        )


def write_card(bundle: Path) -> None:
    """Write the model card of a bundle, its licences, from what is known of its weights."""
    facts = json.loads((bundle / "models" / "shipped.json").read_text())
    about = json.loads((bundle / "configs" / "metadata.json").read_text())
    rows = [f"| `{name}` | {m:.3f} [{a:.3f}, {b:.3f}] |" for name, (m, a, b) in facts["test"].items() if shown(name)]
    share = facts["finish"]
    score = (
        "It was trained on the distance of the GED in its last part; HM-IoU, Dice, CRPS and existence it was not trained on."
        if share
        else "It was trained as in its paper, on none of these distances."
    )
    text = CARD.read_text().format(
        **{**about, **facts},
        folder=bundle.name,
        size=about["network_data_format"]["inputs"]["image"]["spatial_shape"][0],
        cpu_minutes=facts["cpu_seconds"] / 60,
        finished=FINISHED.format(share=share) if share else "not finished by the kernel score",
        references="; ".join(about["references"]),
        table="\n".join(rows),
        score=score,
    )
    (bundle / "docs").mkdir(exist_ok=True)
    (bundle / "docs" / "README.md").write_text(text)
    shutil.copy(LICENSE, bundle / "docs" / "data_license.txt")
    shutil.copy(ROOT / "LICENSE", bundle / "LICENSE")


def shown(metric: str) -> bool:
    """Say whether a card shows a metric: those of 16 and 100 draws."""
    return metric.endswith(("_n16", "_n100"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--dataset_dir")
    parser.add_argument("--name", help="of the table in docs/runs")
    parser.add_argument("--cards", action="store_true", help="write all cards anew, nothing else")
    arguments = parser.parse_args()
    if not arguments.cards:
        if None in (arguments.run, arguments.bundle, arguments.dataset_dir):
            parser.error("RUN, BUNDLE and --dataset_dir are needed")
        ship(
            arguments.run.resolve(),
            arguments.bundle.resolve(),
            arguments.dataset_dir,
            arguments.name or arguments.run.name,
        )
    for path in sorted((ROOT / "bundles").glob("*/models/shipped.json")):
        write_card(path.parent.parent)


if __name__ == "__main__":
    main()
