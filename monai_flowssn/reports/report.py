"""The report of one or several evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from monai_flowssn.metrics.existence import existence_curve
from monai_flowssn.options import check_option
from monai_flowssn.reports.grid import Grid, interval, number, render
from monai_flowssn.reports.names import family, parse
from monai_flowssn.reports.published import PUBLISHED
from monai_flowssn.reports.runs import Run, other_cases

ABOUT = (
    "Two empty masks have IoU and Dice 1 unless a name says drop or zero; foreground only. `_v` counts the distance of a draw to "
    "itself, `_u` does not; `_nN` is the number of draws. Brackets: 95 % bootstrap interval over patients."
)


def report(runs: Sequence[Run], *, published: str | None = None, form: str = "markdown") -> str:
    """Return the report of runs: values, what separates them from the first, ranks, what of a gain with N is the estimator's.

    Runs on different cases are not compared, and values under different conventions or numbers of draws never are; the report
    says so instead.

    Args:
        runs: what :func:`~monai_flowssn.reports.read_runs` returns; the first is the one that others are compared with.
        published: a key of :data:`~monai_flowssn.reports.PUBLISHED`, whose rows are laid beside those of the runs.
        form: ``"markdown"`` or ``"latex"``.
    """
    grids = [_values(runs)]
    alike = [run for run in runs[1:] if not other_cases(runs[0], run)]
    if len(runs) > 1:
        grids.append(_differences(runs, alike))
    if alike:
        grids.append(_ranks([runs[0], *alike]))
    if curves := [row for run in runs for row in _existence_rows(run)]:
        grids.append(_existence(curves))
    if (gain := gain_of_draws(runs)).rows:
        grids.append(gain)
    if published is not None:
        check_option("published", published, list(PUBLISHED))
        grids.append(beside_published(runs, published))
    return render(grids, form)


def _values(runs: Sequence[Run]) -> Grid:
    rows = [
        [name, *(interval(run.interval(name)) if name in run.metrics else "-" for run in runs)]
        for name in _all_metrics(runs)
    ]
    return Grid(
        "Values", ["metric (convention, draws)", *(run.name for run in runs)], rows, (ABOUT, *map(_about, runs))
    )


def _about(run: Run) -> str:
    trained = f", {len(run.tables)} trainings, which the intervals resample too" if len(run.tables) > 1 else ""
    return f"{run.name}: {len(run.cases)} cases of {len(set(run.patients))} patients{trained}."


def _differences(runs: Sequence[Run], alike: Sequence[Run]) -> Grid:
    """Paired differences to the first run, and why others have none."""
    first, notes = runs[0], []
    for run in runs[1:]:
        if run not in alike:
            notes.append(f"{run.name} is not compared: it has other cases, {other_cases(first, run)}.")
        elif unequal := _unequal(first, run):
            notes.append(f"Not compared, as convention or number of draws differ: {'; '.join(unequal)}.")
    shared = [name for name in first.metrics if any(name in run.metrics for run in alike)]
    rows = [
        [name, *(interval(run.minus(first, name)) if name in run.metrics else "-" for run in alike)] for name in shared
    ]
    if any(len(run.tables) == 1 for run in (first, *alike)):
        notes.append("One training of a method says nothing of how much its trainings differ.")
    title = f"Differences to {first.name}, paired by case"
    return Grid(title, ["metric (convention, draws)", *(run.name for run in alike)], rows, tuple(notes))


def _unequal(a: Run, b: Run) -> list[str]:
    """Metrics of two runs that are in one only, though the other has the metric under another convention or N."""
    found = []
    for name in (name for name in a.metrics if name not in b.metrics):
        others = [other for other in b.metrics if family(other) == family(name) and other not in a.metrics]
        others = [other for other in others if parse(other).key == parse(name).key] or others
        if others:
            found.append(f"{name} of {a.name} and {', '.join(others)} of {b.name}")
    return found


def _ranks(runs: Sequence[Run]) -> Grid:
    """The place of each run, by the metrics that all have and of which one end is better."""
    rows, places = [], []
    for name in (name for name in runs[0].metrics if parse(name).better and all(name in run.metrics for run in runs)):
        better = parse(name).better
        means = [-better * run.interval(name).mean for run in runs]
        best = runs[min(range(len(runs)), key=means.__getitem__)]
        rank = [1 + sum(other < mean for other in means) for mean in means]
        places.append(rank)
        rows.append([name, *(f"{place}{_level(run, best, name)}" for run, place in zip(runs, rank, strict=True))])
    if places:
        rows.append(["mean rank", *(number(sum(column) / len(column), 2) for column in zip(*places, strict=True))])
    notes = (
        "~ is level with the best: the interval of the paired difference has 0 in it. Metrics are not independent.",
    )
    return Grid("Ranks", ["metric (convention, draws)", *(run.name for run in runs)], rows, notes)


def _level(run: Run, best: Run, name: str) -> str:
    if run is best:
        return ""
    difference = run.minus(best, name)
    return "" if difference.low > 0 or difference.high < 0 else "~"


def _existence_rows(run: Run) -> list[list[str]]:
    """The calibration curve of existence, of the largest number of draws: bins of the share of draws that mark anything."""
    name = _ours(run, "existence_draws")
    raters = "" if name is None else name.replace("existence_draws", "existence_raters")
    if name is None or raters not in run.metrics:
        return []
    shares = (torch.from_numpy(np.concatenate(run.values(column))).float() for column in (name, raters))
    curve = zip(*existence_curve(*shares, num_bins=5), strict=True)
    return [[run.name, number(float(a)), number(float(b)), str(int(cases))] for a, b, cases in curve if cases]


def _existence(rows: list[list[str]]) -> Grid:
    note = "Cases in five bins of the share of their draws that mark anything; calibrated where the raters' share is the same."
    return Grid("Whether there is a lesion", ["run", "share of draws", "share of raters", "cases"], rows, (note,))


def _estimator_rows(run: Run) -> list[list[str]]:
    """For two numbers of draws N < N': how much GED_v falls, and how much of it is D (1/N - 1/N')."""
    by_n = {(name.split, name.n): full for full in run.metrics if (name := parse(full)).key == "ged_v" and name.n}
    rows = []
    for (split, n), (_, more) in zip(sorted(by_n), sorted(by_n)[1:]):
        prefix = f"{split}_" if split else ""
        spread = f"{prefix}diversity_v_n{more}"
        if more <= n or spread not in run.metrics or (split, more) not in by_n:
            continue
        fall = run.interval(by_n[split, n]).mean - run.interval(by_n[split, more]).mean
        diversity = run.interval(spread).mean * more / (more - 1)  # without a draw's distance to itself
        expected = diversity * (1 / n - 1 / more)
        rows.append([run.name, f"{n} → {more}", number(fall, 4), number(expected, 4), number(diversity)])
    return rows


def gain_of_draws(runs: Sequence[Run]) -> Grid:
    """Return how much GED_v falls with more draws, and how much of it is the estimator's."""
    rows = [row for run in runs for row in _estimator_rows(run)]
    note = (
        "GED_v counts the distance of a draw to itself, so its mean is GED_u + D / N with D the distance of two draws, "
        "whatever the model: what is beyond D (1/N - 1/N') is chance."
    )
    header = ["run", "draws", "fall of ged_v", "D (1/N - 1/N')", "D"]
    return Grid("What of a gain with more draws is the estimator's", header, rows, (note,))


def beside_published(runs: Sequence[Run], name: str) -> Grid:
    """Return published rows, and below them those of runs under the same conventions, as far as they have them.

    Args:
        runs: ours.
        name: a key of :data:`~monai_flowssn.reports.PUBLISHED`.
    """
    about, published = PUBLISHED[name]
    keys = list(dict.fromkeys(key for row in published for key in row.values))
    rows, notes = [], [about]
    for row in published:
        rows.append([row.method, *(number(row.values.get(key, float("nan"))) for key in keys)])
        implied = _implied_diversity(row.values)
        if row.note or implied:
            notes.append(f"{row.method}: {'; '.join(filter(None, [row.note, implied]))}.")
    for run in runs:
        ours = [_ours(run, key) for key in keys]
        rows.append([f"{run.name} (here)", *(interval(run.interval(own)) if own else "-" for own in ours)])
        used = [f"{own} for {key}" for key, own in zip(keys, ours, strict=True) if own]
        notes.append(f"{run.name}: {', '.join(used) if used else 'no metric under one of these conventions'}.")
    return Grid(f"Beside published numbers: {name}", ["method", *keys], rows, tuple(notes))


def _ours(run: Run, key: str) -> str | None:
    """The column of a run under the convention of a published number: of the same N, or the largest where none is said."""
    wanted = parse(key)
    found = [
        full for full in run.metrics if parse(full).key == wanted.key and (not wanted.n or parse(full).n == wanted.n)
    ]
    return max(found, key=lambda full: parse(full).n, default=None)


def _implied_diversity(values: dict[str, float]) -> str:
    """The diversity that would explain a fall of GED_v from 16 to 100 draws, which is at most 1."""
    if not {"ged_v_n16", "ged_v_n100"} <= values.keys():
        return ""
    implied = (values["ged_v_n16"] - values["ged_v_n100"]) / (1 / 16 - 1 / 100)
    return f"its fall from 16 to 100 draws is that of D = {implied:.2f}" + (
        ", which cannot be above 1" if implied > 1 else ""
    )


def _all_metrics(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.metrics))
