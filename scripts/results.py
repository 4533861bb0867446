"""Write docs/results.{md,json} and docs/ged_and_draws.png from the runs of an MLflow tracking server.

    python scripts/results.py --tracking_uri sqlite:///runs/mlflow.db --dataset_dir data/lidc --limit 400

One row per method, its newest finished evaluation on lidc, and two references that every reader needs: the raters' own masks as
draws, and the empty mask. Intervals are bootstrapped over patients; differences to the first method are paired by case. A method
from elsewhere joins by its table of cases: ``--beside "name=per_case.csv"``. Notes between the marks of an older results.md stay.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from monai.transforms import CenterSpatialCrop
from torch.nn.functional import one_hot

from monai_flowssn.data import lidc
from monai_flowssn.metrics import bootstrap_interval, evaluate_preset, paired_difference

DOCS = Path(__file__).resolve().parent.parent / "docs"
Table = dict[str, dict[str, Any]]
PAUSE = 30 * 60_000  # ms from one logged value to the next, after which a training has been resumed

TEXT = """# Results

Real LIDC-IDRI, `test` group: {cases} cases of {patients} patients, {size}x{size} centre crops, four radiologists. Written by
`scripts/results.py` from logged runs. Foreground only; two empty masks have IoU 1 and Dice 1. `_v` counts the distance of a draw
to itself (as papers do), `_u` does not; `_nN` is the number of draws. `hm_iou_duplicate` scores every draw, `hm_iou_best` lets
each rater choose the best of N. NLL in nats per case, probabilities clamped at 1e-6. Brackets: 95 % bootstrap interval over
patients.

{methods}

<!-- notes -->{notes}<!-- end of notes -->

![GED against the number of draws](ged_and_draws.png)

Left as papers count (`_v`), right without the distance of a draw to itself (`_u`): what falls with N on the left is that
distance, D / N with D the diversity, and no better model.

## Differences

To {first}, paired by case: below 0 is better for GED, NLL and ECE, above 0 for HM-IoU and Dice. The intervals are over
patients, for one training of each method: how much trainings differ is not in them, nor that many differences are looked at.

{differences}

## Cost

{machine}

{cost}

## References

What the raters' own four masks score as draws, and what a model that never marks anything scores. (`ged_u` of the raters is
below 0: draws that are the raters themselves are no independent sample.)

{references}
"""


def read_runs(client: MlflowClient, experiment: str) -> tuple[dict[str, Run], dict[str, Run]]:
    """Return for every method the newest finished evaluation, and the newest finished training before it."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise SystemExit(f"there is no experiment {experiment!r}; evaluate a bundle with this tracking_uri first.")
    newest, trainings, evaluations = {}, {}, {}
    for run in client.search_runs([found.experiment_id], "attributes.status = 'FINISHED'", order_by=["start_time ASC"]):
        method = run.data.tags.get("method", "")
        if run.data.tags.get("data") != "lidc":
            continue
        if any(name.startswith("test_") for name in run.data.metrics):
            evaluations[method], trainings[method] = run, newest.get(method)
        else:
            newest[method] = run
    return {method: run for method, run in trainings.items() if run}, evaluations


def read_evaluation(client: MlflowClient, run: Run) -> list[dict[str, str]]:
    """Return the table of cases of an evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        return read_cases(client.download_artifacts(run.info.run_id, "per_case/per_case.csv", folder))


def read_cases(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> torch.Tensor:
    """Return one metric of all cases."""
    return torch.tensor([float(row[name]) for row in rows])


def metric_names(rows: list[dict[str, str]]) -> list[str]:
    return [name for name in rows[0] if name not in ("case", "patient")]


def summarise(cases: dict[str, list[dict[str, str]]]) -> Table:
    """Return mean, low and high of every metric of every method."""
    table = {}
    for method, rows in cases.items():
        patients = [row["patient"] for row in rows]
        table[method] = {name: tuple(bootstrap_interval(column(rows, name), patients)) for name in metric_names(rows)}
    return table


def differences(cases: dict[str, list[dict[str, str]]]) -> Table:
    """Return the paired differences of every further method to the first."""
    first, *others = cases
    rows = cases[first]
    patients = [row["patient"] for row in rows]
    table = {}
    for other in others:
        theirs = cases[other]
        names = [name for name in metric_names(rows) if name in theirs[0]]
        table[other] = {
            name: tuple(paired_difference(column(theirs, name), column(rows, name), patients)) for name in names
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


def cost(client: MlflowClient, trainings: dict[str, Run], evaluations: dict[str, Run]) -> list[dict[str, Any]]:
    """Return parameters, training and sampling time of every method."""
    rows = []
    for method, run in evaluations.items():
        row = {"method": method, "parameters": int(run.data.params["parameters_total"])}
        if method in trainings:
            losses, scores = (
                client.get_metric_history(trainings[method].info.run_id, name)
                for name in ("train_loss", "val_ged_v_n16")
            )
            times = sorted(point.timestamp for point in [*losses, *scores])
            row["training steps"] = max((point.step for point in losses), default=None)
            worked = sum(end - start for start, end in pairwise(times) if end - start < PAUSE)
            row["minutes, validations included"] = round(worked / 60_000, 1)
            row["best val_ged_v_n16"] = min((round(point.value, 4) for point in scores), default=None)
        for name, value in run.data.metrics.items():
            if "seconds_per_image" in name:
                row[name.removeprefix("test_")] = round(value, 3)
        rows.append(row)
    return rows


def draw_curves(methods: Table, path: Path) -> None:
    """Draw the GED of every method against the number of draws, in both conventions."""
    twice = plt.cycler(linestyle=["-", "--"]) * plt.rcParamsDefault["axes.prop_cycle"]  # there are ten colours
    plt.rc("axes", prop_cycle=twice)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    for axis, estimator in zip(axes, "vu"):
        start = f"test_ged_{estimator}_n"
        for method, values in methods.items():
            course = sorted(
                (int(name.removeprefix(start)), value[0]) for name, value in values.items() if start in name
            )
            axis.plot(*zip(*course), marker=".", label=method)
        axis.set(xscale="log", xlabel="draws N", title=f"ged_{estimator}")
        axis.set_xticks(ticks := (1, 2, 4, 8, 16, 32, 64, 100), ticks)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=150)


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Return a table of dictionaries with one row each."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return "\n".join(lines + ["| " + " | ".join(cell(row.get(name)) for name in names) + " |" for row in rows])


def cell(value: Any) -> str:
    if isinstance(value, tuple):
        digits = 1 if abs(value[0]) >= 10 else 3
        return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*value, d=digits)
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def tables(table: Table) -> str:
    """Return a table for each number of draws; the GED at further numbers is left to the figure."""
    names = {name for values in table.values() for name in values}
    ends = sorted({int(name.rpartition("_n")[2]) for name in names if "dice" in name})
    return "\n\n".join(f"{n} draws\n\n{markdown(by_method(table, f'_n{n}'))}" for n in ends)


def by_method(table: Table, end: str = "") -> list[dict[str, Any]]:
    """Return a row per method with the metrics whose names have this end."""
    return [
        {"method": method, **{name.removeprefix("test_"): v for name, v in values.items() if name.endswith(end)}}
        for method, values in table.items()
        if any(name.endswith(end) for name in values)
    ]


def kept_notes(path: Path) -> str:
    """Return what a person has written between the two marks of the file that is about to be replaced."""
    found = re.search("<!-- notes -->(.*)<!-- end of notes -->", path.read_text(), re.DOTALL) if path.exists() else None
    return found[1] if found else "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking_uri", required=True)
    parser.add_argument("--experiment", default="monai_flowssn")
    parser.add_argument("--dataset_dir", required=True, help="LIDC, as in configs/data/lidc.yaml")
    parser.add_argument("--limit", type=int, help="the limit that the evaluations used")
    parser.add_argument(
        "--reference", default="flowssn_continuous", help="method that stands first and is compared with"
    )
    parser.add_argument("--beside", nargs="*", default=[], metavar="NAME=CSV", help="methods from elsewhere")
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    client = MlflowClient(arguments.tracking_uri)
    trainings, evaluations = read_runs(client, arguments.experiment)
    if not evaluations:
        raise SystemExit(
            f"{arguments.tracking_uri} has no finished evaluation on lidc; run `evaluating` with it first."
        )
    cases = {method: read_evaluation(client, run) for method, run in evaluations.items()}
    cases = dict(sorted(cases.items(), key=lambda entry: entry[0] != arguments.reference))
    cases |= {name: read_cases(path) for name, _, path in (entry.partition("=") for entry in arguments.beside)}
    items = lidc(arguments.dataset_dir, "test", limit=arguments.limit)
    for name, rows in cases.items():
        if [row["case"] for row in rows] != [item["case"] for item in items]:
            raise SystemExit(
                f"{name} was evaluated on other cases than --limit {arguments.limit} gives: evaluate it with this limit."
            )
    sizes = {run.data.params["spatial_size"] for run in evaluations.values()}
    if len(sizes) > 1:
        raise SystemExit(f"the evaluations are of {sizes}, which do not compare: give each scale its own experiment.")
    size = json.loads(sizes.pop())[0]
    summary = {
        "methods": summarise(cases),
        "differences": differences(cases),
        "references": references(items, size),
        "cost": cost(client, trainings, evaluations),
        "params": {method: run.data.params for method, run in evaluations.items()},
    }
    text = TEXT.format(
        cases=len(items),
        patients=len({item["patient"] for item in items}),
        size=size,
        methods=tables(summary["methods"]),
        notes=kept_notes(arguments.out / "results.md"),
        first=next(iter(cases)),
        differences=tables(summary["differences"]),
        machine=next(iter(evaluations.values())).data.params["machine"],
        cost=markdown(summary["cost"]),
        references=markdown(by_method(summary["references"])),
    )
    arguments.out.mkdir(exist_ok=True)
    draw_curves(summary["methods"], arguments.out / "ged_and_draws.png")
    (arguments.out / "results.json").write_text(json.dumps(summary, indent=1) + "\n")
    (arguments.out / "results.md").write_text(text)


if __name__ == "__main__":
    main()
