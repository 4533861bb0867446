"""Write docs/results.md and its figure from the runs that record_run.py has kept.

    python scripts/results.py
    python scripts/results.py --dataset_dir data/lidc.hdf5    # what the raters themselves would score, anew

Every NAME.json of the folder of results tells of one trained model, NAME.csv has its metrics per case. Runs of one method that
differ in the seed alone are one row. Notes between the marks of an older page stay."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from monai.transforms import CenterSpatialCrop

from monai_flowssn.data import lidc
from monai_flowssn.metrics import compute_diversity, compute_ged
from monai_flowssn.reports.grid import Grid, interval, number, render
from monai_flowssn.reports.report import beside_published
from monai_flowssn.reports.runs import Run, other_cases, read_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
TOP = {
    "GED_u n100": "test_ged_u_n100",
    "HM-IoU n100": "test_hm_iou_duplicate_n100",
    "Dice where marked": "test_dice_majority_where_any_n100",
}
AGAINST = ("ssn", "phiseg")  # the differences to these are shown, paired

TEXT = """# Results

Real LIDC-IDRI: {cases} slices of {patients} patients that no training saw, {size}x{size} pixels around a nodule, four
radiologists. Every method has had the same budget, {minutes} minutes of one CPU core ({steps} steps of 16 images, as its step
costs), and everything was chosen on validation patients. Written by `scripts/results.py` from `docs/results/`, where each run
is.

{top}
`GED_u` is the squared generalised energy distance without a draw's distance to itself (below: better), `HM-IoU` the IoU with
every draw matched to a rater (Hungarian), `Dice` that of the segmentation with the strict majority on slices that some
radiologist marked. Foreground only; two empty masks have IoU 1. *Finished* methods trained the last part of the budget on the
kernel score, which is GED's own distance: so read their other columns too. Seconds are of one core, bfloat16, for 100 draws of
a 128x128 image. Brackets: 95 % bootstrap intervals over patients{seeds}.

![GED of each method against the seconds that its draws take](ged_and_seconds.png)

**How far down it goes.** The GED keeps the raters' distance to themselves, so a model that draws exactly as they do scores
{floor:.3f} here, not 0: the mean distance of two of them ({distance:.3f}) over four. The empty mask scores {empty:.3f}.

<!-- notes -->{notes}<!-- end of notes -->

{differences}
{whole}
{wide}
{trainings}
Earlier trainings, of 21 minutes on two cores with a constant learning rate, and what was learnt from them:
[earlier_results.md](earlier_results.md).
"""


@dataclass(frozen=True)
class Row:
    """One method: its runs, and what is known of each."""

    run: Run
    facts: list[dict[str, Any]]

    @property
    def finished(self) -> str:
        """The share of its budget."""
        share = self.facts[0]["finish"]
        return f"{share:g}" if share else "no"

    @property
    def seconds(self) -> float:
        """Of one core, for 100 draws."""
        return float(self.facts[0]["cpu_seconds_100_draws"])


def read_rows(folder: Path) -> list[Row]:
    """Return the methods of a folder, the lowest GED first."""
    facts: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        one = json.loads(path.read_text())
        if "run" in one:
            facts.setdefault(f"{one['method']}{', finished' if one['finish'] else ''}", []).append(one)
    if not facts:
        raise SystemExit(f"{folder} has no runs; scripts/record_run.py keeps them.")
    rows = [
        Row(Run(name, tuple(read_table(folder / f"{one['run']}.csv", one["run"]) for one in runs)), runs)
        for name, runs in facts.items()
    ]
    first = rows[0].run.tables[0]
    for table in (table for row in rows for table in row.run.tables):
        if reason := other_cases(first, table):
            raise SystemExit(f"{table.name} was evaluated on other cases than {first.name}: {reason}.")
    return sorted(rows, key=lambda row: row.run.interval(TOP["GED_u n100"]).mean)


def top_table(rows: list[Row]) -> Grid:
    header = ["method", "finished", *TOP, "seconds", "parameters", "trainings"]
    lines = [
        [
            row.run.name.partition(",")[0],
            row.finished,
            *(interval(row.run.interval(name)) for name in TOP.values()),
            f"{row.seconds:.2f}",
            f"{row.facts[0]['parameters'] / 1e6:.2f} M",
            str(len(row.facts)),
        ]
        for row in rows
    ]
    return Grid("The table", header, lines)


def wide_table(rows: list[Row], n: int) -> Grid:
    """Return all metrics of N draws."""
    names = [name for name in rows[0].run.metrics if name.endswith(f"_n{n}")]
    lines = [
        [row.run.name, *(number(row.run.interval(name).mean) if name in row.run.metrics else "-" for name in names)]
        for row in rows
    ]
    header = ["method", *(name.removeprefix("test_").removesuffix(f"_n{n}") for name in names)]
    note = "Intervals and paired differences of all: `monai-flowssn report docs/results/*.csv`."
    return Grid(f"All metrics, {n} draws", header, lines, (note,))


def difference_table(rows: list[Row], method: str) -> Grid:
    """Return what separates the other methods from the best row of one, paired by case."""
    first = next(row for row in rows if row.facts[0]["method"] == method)
    lines = [
        [row.run.name, *(interval(row.run.minus(first.run, name)) for name in TOP.values())]
        for row in rows
        if row is not first
    ]
    note = (
        "Below 0 is better for GED, above 0 for the others. An interval that leaves 0 out separates the trained models."
    )
    return Grid(f"Differences to {first.run.name}, paired by case", ["method", *TOP], lines, (note,))


def training_table(rows: list[Row]) -> Grid:
    keys = ("run", "seed", "cpu_seconds", "steps", "commit")
    lines = [[str(one[key])[:40] for key in keys] for row in rows for one in row.facts]
    return Grid("Trainings", list(keys), [[*line[:-1], f"`{line[-1][:9]}`"] for line in lines])


def whole_table(folder: Path) -> str:
    """Return the runs that were scored on whole 128x128 masks (record_run.py --whole) beside published numbers."""
    runs = [Run(path.stem, (read_table(path, path.stem),)) for path in sorted(folder.glob("*.csv"))]
    if not runs:
        return ""
    grid = beside_published(runs, "lidc")
    cases, patients = len(runs[0].cases), len(set(runs[0].patients))
    about = (
        f"All {cases} test slices of {patients} patients, scored on the whole 128x128 masks; these models draw the 64x64 centre "
        "and put background around it (0.9 % of the masks leave it)."
    )
    return render([grid._replace(title="On 128x128, beside published numbers", notes=(about, *grid.notes))], "markdown")


def references(dataset_dir: str, cases: int, size: int) -> dict[str, float]:
    """Return the mean distance of two raters, and the GED_u of a model that never marks anything."""
    crop = CenterSpatialCrop([size, size])
    items = lidc(dataset_dir, "test", limit=cases)
    masks = torch.stack([crop(item["label"]).as_tensor() for item in items]).long()  # type: ignore[operator]
    distance = compute_diversity(masks, estimator="u").mean().item()
    return {"distance": distance, "empty": compute_ged(torch.zeros_like(masks), masks, estimator="u").mean().item()}


def draw_figure(rows: list[Row], floor: float, path: Path) -> None:
    """Draw GED against seconds, the five best in colour."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    values = {row.run.name: row.run.interval(TOP["GED_u n100"]) for row in rows}
    for i, row in enumerate(rows):
        value, colour = values[row.run.name], f"C{i}" if i < 5 else "0.6"
        axis.errorbar(
            row.seconds,
            value.mean,
            [[value.mean - value.low], [value.high - value.mean]],
            fmt="o",
            color=colour,
            mfc=colour if row.facts[0]["finish"] else "white",
            lw=1,
        )
        axis.annotate(
            row.run.name.partition(",")[0], (row.seconds, value.mean), (7, 0), textcoords="offset points",
            color=colour if i < 5 else "0.4", va="center", fontsize=10,
        )  # fmt: skip
    axis.axhline(floor, color="0.5", ls=":")
    across = axis.get_yaxis_transform()
    axis.text(
        0.995, floor, "a model that draws as the raters do", transform=across, ha="right", va="bottom", color="0.4"
    )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set(xlabel="seconds of one core for 100 draws of 128x128", ylabel="GED_u, 100 draws")
    axis.spines[["top", "right"]].set_visible(False)
    figure.text(0.99, 0.985, "filled: finished by the kernel score", ha="right", va="top", color="0.4")
    _part_labels(figure, axis)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _part_labels(figure: Any, axis: Any) -> None:
    """Move labels up until none lies on another."""
    figure.canvas.draw()
    placed: list[Any] = []
    for text in sorted(axis.texts, key=lambda t: t.get_window_extent().y0):
        for _ in range(50):
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in placed):
                break
            x, y = text.get_position()
            text.set_position((x, y + 2))
        placed.append(text.get_window_extent())


def kept_notes(path: Path) -> str:
    """Return what a person has written between the two marks of the file that is about to be replaced."""
    found = re.search("<!-- notes -->(.*)<!-- end of notes -->", path.read_text(), re.DOTALL) if path.exists() else None
    return found[1] if found else "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=DOCS / "results", help="the folder of runs")
    parser.add_argument("--dataset_dir", help="LIDC; only to compute the references anew")
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    rows = read_rows(arguments.results)
    run, facts = rows[0].run, [one for row in rows for one in row.facts]
    size, known = 64, arguments.results / "references.json"
    if arguments.dataset_dir:
        known.write_text(json.dumps(references(arguments.dataset_dir, len(run.cases), size), indent=1) + "\n")
    if not known.exists():
        raise SystemExit(f"{known} does not exist; give --dataset_dir once.")
    refs = json.loads(known.read_text())
    floor = refs["distance"] / 4  # of the four raters
    arguments.out.mkdir(exist_ok=True)
    draw_figure(rows, floor, arguments.out / "ged_and_seconds.png")
    steps = sorted(one["steps"] for one in facts)
    shown = [method for method in AGAINST if any(one["method"] == method for one in facts)]
    page = arguments.out / "results.md"
    text = TEXT.format(
        cases=len(run.cases),
        patients=len(set(run.patients)),
        size=size,
        minutes=round(max(one["cpu_seconds"] for one in facts) / 60),
        steps=f"{steps[0]:,} to {steps[-1]:,}",
        top=render([top_table(rows)], "markdown").partition("\n\n")[2],
        seeds=", and over trainings where a row has several" if len(facts) > len(rows) else "; one training each",
        floor=floor,
        **refs,
        notes=kept_notes(page),
        differences=render([difference_table(rows, method) for method in shown], "markdown"),
        whole=whole_table(arguments.results / "whole"),
        wide=render([wide_table(rows, n) for n in (16, 100)], "markdown"),
        trainings=render([training_table(rows)], "markdown"),
    )
    page.write_text(text)


if __name__ == "__main__":
    main()
