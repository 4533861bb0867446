"""Evaluate a trained model, keep what is known of it, and put it into its bundle.

    python scripts/record_run.py RUN BUNDLE --dataset_dir data/lidc.hdf5 [--name ssn_finished_s0] [--ship]
    python scripts/record_run.py --cards

RUN is the ``--bundle_root`` of a finished training on LIDC-IDRI with the options of the bundle, and of the variant (--overlay)
if it was one. Its weights, rounded to bfloat16, are evaluated on 400 test cases; the folder of results gets NAME.csv, the table
of cases, and NAME.json, what is known of the run. With --ship the weights go to BUNDLE/models/ with the same facts, and the
bundle gets its card. With --whole it is only scored on the whole 128x128 masks of all test cases, as published. The last form
writes all cards anew.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from mlflow import MlflowClient
from monai.bundle import ConfigParser
from monai.bundle import run as run_workflow

from monai_flowssn.cli.card import interval_text
from monai_flowssn.data import lidc
from monai_flowssn.handlers.run_facts import to_yaml
from monai_flowssn.handlers.trained_options import OPTIONS_FILE
from monai_flowssn.inferers.draws import cpu_autocast
from monai_flowssn.metrics import compute_ged
from monai_flowssn.reports.runs import Run, read_table
from monai_flowssn.shipped import embedded_score, load_shipped
from monai_flowssn.workflows.tracking import model_options

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
CARD = ROOT / "configs" / "model_card.md"
LICENSE = ROOT / "configs" / "data" / "lidc_license.txt"  # of the data; ours is that of the repository
FINISHED = "the last {share:.1f} of it on the kernel score of draws, the distance that GED evaluates, so look at the others too"


def evaluate(run: Path, bundle: Path, out: Path, overlay: Path | None, **options: Any) -> Path:
    """Evaluate the weights of a run, rounded to bfloat16, and return their file."""
    state = torch.load(run / "models" / "model.pt", map_location="cpu", weights_only=True)
    weights = run / "models" / "rounded.pt"
    torch.save({key: value.bfloat16() if value.is_floating_point() else value for key, value in state.items()}, weights)
    run_workflow(
        "evaluating",
        config_file=[str(path) for path in (bundle / "configs" / "evaluate.yaml", overlay) if path],
        bundle_root=str(run),
        model_path=str(weights),
        output_dir=str(out),
        split="test",
        eval_draws=100,
        **options,
    )
    return weights


def record(
    run: Path, bundle: Path, dataset_dir: str, name: str, *, overlay: Path | None, results: Path, limit: int
) -> tuple[Path, dict[str, Any]]:
    """Evaluate a run on its own windows; return its weights, and what is known of them."""
    out = run / "runs" / "recorded"
    weights = evaluate(run, bundle, out, overlay, dataset_dir=dataset_dir, limit=limit, presets=["extended"])
    model = load_shipped(bundle, weights, overlay=overlay)
    with tempfile.TemporaryDirectory() as folder:
        check = embedded_score(model, folder)
    table = read_table(out / "per_case.csv")
    result = Run(name, (table,))
    facts = {
        "run": name,
        **facts_of(run),
        "parameters": sum(value.numel() for value in model.parameters()),
        "cpu_seconds_100_draws": draw_seconds(model),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "check": check,
        "off_centre": off_centre(model, dataset_dir),
        "cases": len(table.cases),
        "patients": len(set(table.patients)),
        "test": {metric: [round(v, 4) for v in result.interval(metric)] for metric in result.metrics},
    }
    write_cases(out / "per_case.csv", results / f"{name}.csv")
    write_json(results / f"{name}.json", facts)
    return weights, facts


def draw_seconds(model: Any, *, size: int = 128) -> float:
    """Return the processor seconds of 100 draws of one image in bfloat16, where the CPU has it: the median of five."""
    image, seconds = torch.zeros(1, 1, size, size).to(memory_format=torch.channels_last), []
    model = model.to(memory_format=torch.channels_last)
    for _ in range(6):
        start = time.process_time()
        with cpu_autocast(image.device):
            model.sample(image, 100)
        seconds.append(time.process_time() - start)
    return round(sorted(seconds[1:])[2], 3)


@torch.no_grad()
def off_centre(model: Any, dataset_dir: str, *, size: int = 64) -> dict[str, float]:
    """Return GED_u n16 on 200 validation cases whose window is off the centre by so many pixels, as a click is."""
    cases, found = lidc(dataset_dir, "val", limit=200), {}
    room = min(min(case["image"].shape[1:]) for case in cases) // 2 - size // 2
    for pixels in (p for p in (0, 2, 4, 8, 12) if p <= room):
        images, masks = [], []
        for i, case in enumerate(cases):
            shift = [pixels * (-1) ** (i // 2) * (i % 2 == axis) for axis in (0, 1)]
            starts = [s // 2 - size // 2 + d for s, d in zip(case["image"].shape[1:], shift)]
            place = (slice(None), *(slice(start, start + size) for start in starts))
            images.append(case["image"].as_tensor()[place].float() / 127.5 - 1)  # type: ignore[union-attr]
            masks.append(case["label"].as_tensor()[place])  # type: ignore[union-attr]
        torch.manual_seed(0)
        with cpu_autocast(torch.device("cpu")):
            labels = torch.cat([model.sample(part, 16).argmax(dim=2) for part in torch.stack(images).split(20)])
        found[str(pixels)] = round(compute_ged(labels, torch.stack(masks), estimator="u").mean().item(), 4)
    return found


def ship(weights: Path, facts: dict[str, Any], bundle: Path) -> None:
    """Put weights and what is known of them into a bundle."""
    (bundle / "models").mkdir(exist_ok=True)
    shutil.copy(weights, bundle / "models" / "model.pt")
    write_options(bundle)
    write_json(bundle / "models" / "shipped.json", facts)


def write_options(bundle: Path) -> None:
    """Write beside the weights what they depend on: the options of the bundle, with which they were trained."""
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.yaml"))
    options = model_options(config.get_parsed_content("data"), config.get())
    (bundle / "models" / OPTIONS_FILE).write_text(to_yaml(options) or "", encoding="utf-8")


def write_json(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n")


def facts_of(run: Path) -> dict[str, Any]:
    """Return what the newest training of a run tells of itself."""
    last = torch.load(next((run / "models").rglob("last.ckpt")), map_location="cpu", weights_only=True)
    client = MlflowClient(f"sqlite:///{run}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("monai_flowssn")
    trainings = client.search_runs([experiment.experiment_id], "tags.run = 'train'", order_by=["start_time DESC"])
    params = trainings[0].data.params
    return {
        "method": trainings[0].data.tags["method"],
        "finish": float(params["finish"]),
        "seed": int(params["seed"]),
        "batch_size": int(params["batch_size"]),
        "commit": params.get("git_commit", "unknown"),
        "cpu_seconds": round(last["budget"]["cpu_spent"]),
        "steps": last["trainer"]["iteration"],
    }


def write_cases(source: Path, target: Path) -> None:
    """Copy a table of cases, the metrics that cards show, with four digits behind the point."""
    with source.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    kept = [i for i, name in enumerate(header) if i < 2 or shown(name)]
    target.parent.mkdir(exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([header[i] for i in kept])
        writer.writerows(
            [row[i] if i < 2 else f"{float(row[i]):.4f}".rstrip("0").rstrip(".") for i in kept] for row in rows
        )


def write_card(bundle: Path) -> None:
    """Write the model card of a bundle, its licences, from what is known of its weights."""
    facts = json.loads((bundle / "models" / "shipped.json").read_text())
    about = json.loads((bundle / "configs" / "metadata.json").read_text())
    config = yaml.safe_load((bundle / "configs" / "inference.yaml").read_text())
    share = facts["finish"]
    score = (
        "It was trained on the distance of the GED in its last part; HM-IoU, Dice, CRPS and existence it was not trained on."
        if share
        else "It was trained as in its paper, on none of these distances."
    )
    text = CARD.read_text().format(
        **{**about, **facts, "references": "; ".join(about["references"])},
        folder=bundle.name,
        size="x".join(map(str, config["spatial_size"])),
        cpu_minutes=facts["cpu_seconds"] / 60,
        finished=FINISHED.format(share=share) if share else "not finished by the kernel score",
        pixels=" | ".join(facts["off_centre"]),
        lines="|---" * len(facts["off_centre"]),
        off=" | ".join(f"{value:.3f}" for value in facts["off_centre"].values()),
        table="\n".join(rows(facts["test"])),
        score=score,
    )
    (bundle / "docs").mkdir(exist_ok=True)
    (bundle / "docs" / "README.md").write_text(text)
    shutil.copy(LICENSE, bundle / "docs" / "data_license.txt")
    shutil.copy(ROOT / "LICENSE", bundle / "LICENSE")


def rows(values: dict[str, list[float]]) -> list[str]:
    """Return the rows of a card's table: a metric, and its value with 16 and with 100 draws."""
    names = dict.fromkeys(name.rpartition("_n")[0] for name in values if shown(name))
    cells = [[values.get(f"{name}_n{n}") for n in (16, 100)] for name in names]
    texts = [["-" if cell is None else interval_text(cell) for cell in row] for row in cells]
    return [f"| `{name.removeprefix('test_')}` | {a} | {b} |" for name, (a, b) in zip(names, texts)]


def shown(metric: str) -> bool:
    """Say whether a metric is shown: those of 16 and 100 draws."""
    return metric.endswith(("_n16", "_n100"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--dataset_dir")
    parser.add_argument("--name", help="in docs/results, by default that of the folder")
    parser.add_argument("--overlay", type=Path, help="the config file of the variant that was trained")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results")
    parser.add_argument("--limit", type=int, default=400, help="number of test cases")
    parser.add_argument("--ship", action="store_true", help="put the weights into the bundle")
    parser.add_argument("--whole", action="store_true", help="only score all test cases on their whole 128x128 masks")
    parser.add_argument("--cards", action="store_true", help="write all cards anew, nothing else")
    arguments = parser.parse_args()
    if arguments.whole:
        out = arguments.run.resolve() / "runs" / "whole"
        overlay = ROOT / "configs" / "protocols" / "lidc_128.yaml"
        evaluate(arguments.run.resolve(), arguments.bundle.resolve(), out, overlay, dataset_dir=arguments.dataset_dir)
        write_cases(out / "per_case.csv", arguments.results / "whole" / f"{arguments.name or arguments.run.name}.csv")
    elif not arguments.cards:
        if None in (arguments.run, arguments.bundle, arguments.dataset_dir):
            parser.error("RUN, BUNDLE and --dataset_dir are needed")
        run, bundle = arguments.run.resolve(), arguments.bundle.resolve()
        weights, facts = record(
            run,
            bundle,
            arguments.dataset_dir,
            arguments.name or run.name,
            overlay=arguments.overlay,
            results=arguments.results,
            limit=arguments.limit,
        )
        if arguments.ship:
            ship(weights, facts, bundle)
    for path in sorted((ROOT / "bundles").glob("*/models/shipped.json")):
        write_card(path.parent.parent)


if __name__ == "__main__":
    main()
