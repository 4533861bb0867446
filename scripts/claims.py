"""Try the claims of docs/claims/claims.yaml, and write docs/claims.md.

    python scripts/claims.py train retina_ssn --data retinal_vessel=data/retinal_vessel [--out runs]
    python scripts/claims.py

The first trains and evaluates what a run of the file says, with all its folds and seeds, goes on where it was killed, and keeps
the metrics per case and what is known of the training in docs/claims/. The second reads these, and the table of docs/results/,
and says of each claim whether it holds: paired differences over cases, intervals over patients."""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from record_run import facts_of, write_cases, write_json
from results import read_rows

from monai_flowssn.metrics import Interval
from monai_flowssn.reports.grid import interval, render
from monai_flowssn.reports.report import gain_of_draws
from monai_flowssn.reports.runs import Run, other_cases, pool_tables, read_table

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CLAIMS = DOCS / "claims"

TEXT = """# The claims of the papers, tried

What the papers of these methods say of themselves, each tried with everything else equal: data, budget, network where it can
be, and choice of the weights on validation data. Written by `scripts/claims.py` from `docs/claims/`, where `claims.yaml` says
how each run was made. Differences are paired by case, with 95 % bootstrap intervals over patients (images of the retina).
*Holds* and *does not hold*: the whole interval is on one side of 0; *not separated*: it is not. One training each unless said
otherwise: how much trainings differ is not in the intervals.

{claims}

{gain}
{notes}"""


def train(name: str, spec: dict[str, Any], evaluation: dict[str, Any], data: str, out: Path) -> None:
    """Train and evaluate all folds and seeds of a run, and keep what came out."""
    configs = ROOT / "bundles" / f"{spec['method']}_segmentation" / "configs"
    overlays = [f"configs/data/{spec['data']}.yaml", *spec.get("overlays", [])]
    folds = spec.get("folds", 1)
    for seed, fold in product(spec.get("seeds", [0]), range(folds)):
        part = f"{name}_s{seed}_f{fold}"
        if (CLAIMS / f"{part}.json").exists():
            continue
        options = {"bundle_root": out / part, "dataset_dir": data, **spec.get("options", {})}
        options |= {"data::folds": folds, "data::fold": fold} if folds > 1 else {}
        training = {"seed": seed, "cpu_limit": spec["cpu_seconds"], "max_epochs": 100_000, "resume": True}
        workflow("training", configs / "train.yaml", overlays, {**options, **training, **spec.get("train", {})})
        workflow("evaluating", configs / "evaluate.yaml", overlays, {**options, **evaluation})
        table = next((out / part / "runs").glob("evaluate/**/per_case.csv"))
        write_cases(table, CLAIMS / f"{part}.csv")
        write_json(CLAIMS / f"{part}.json", {"run": part, **facts_of(out / part)})


def workflow(name: str, config: Path, overlays: list[str], options: dict[str, Any]) -> None:
    """Run a workflow as a user does."""
    files = str([str(config), *(str(ROOT / path) for path in overlays)])
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", name, "--config_file", files, *words], check=True, cwd=ROOT
    )


def read(claims: dict[str, Any]) -> dict[str, Run]:
    """Return the runs that are there, the folds of each as one table."""
    found = {}
    for name, spec in claims["runs"].items():
        tables = []
        for seed in spec.get("seeds", [0]):
            paths = [CLAIMS / f"{name}_s{seed}_f{fold}.csv" for fold in range(spec.get("folds", 1))]
            if all(path.exists() for path in paths):
                folds = [read_table(path, path.stem) for path in paths]
                tables.append(pool_tables(folds) if len(folds) > 1 else folds[0])
        if tables:
            found[name] = Run(name, tuple(tables))
    return found


def verdict(difference: Interval, better: int) -> str:
    """Say what a paired difference says of a claim that it has the sign of `better`."""
    low, high = sorted((better * difference.low, better * difference.high))
    return "holds" if low > 0 else "does not hold" if high < 0 else "not separated"


def claim_rows(claims: dict[str, Any], runs: dict[str, Run]) -> list[str]:
    """Return the rows of the table: a claim may be tried in several ways."""
    lines = ["| paper | claim | tried | here | verdict |", "|---|---|---|---|---|"]
    for claim in claims["claims"]:
        for trial in claim["trials"]:
            cells = [claim["paper"], claim["claim"], trial["how"]]
            first, second = (runs.get(trial.get(key, "")) for key in ("run", "to"))
            if first is None or second is None:
                cells += [trial.get("here", "-"), trial.get("verdict", "not tried yet")]
            elif reason := other_cases(first, second):
                raise SystemExit(f"{first.name} and {second.name} have other cases: {reason}.")
            else:
                metric, better = trial["metric"], trial["better"]
                difference = first.minus(second, metric)
                values = " against ".join(f"{run.interval(metric).mean:.3f}" for run in (first, second))
                name = metric.removeprefix("test_")
                cells += [f"{name} {values}: {interval(difference)}", f"**{verdict(difference, better)}**"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["train"])
    parser.add_argument("runs", nargs="*", help="names of the file")
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=PATH", help="where each data set is")
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="where models go")
    arguments = parser.parse_args()
    claims = yaml.safe_load((CLAIMS / "claims.yaml").read_text())
    data = dict(entry.split("=", 1) for entry in arguments.data)
    if arguments.command:
        for name in arguments.runs or claims["runs"]:
            spec = claims["runs"][name]
            if spec["data"] not in data:
                raise SystemExit(f"{name} is of {spec['data']}: give --data {spec['data']}=PATH.")
            train(
                name,
                spec,
                claims["evaluate"][spec["data"]],
                str(Path(data[spec["data"]]).resolve()),
                arguments.out.resolve(),
            )
    rows = [row.run for row in read_rows(DOCS / "results")]
    runs = {run.name: run for run in rows} | read(claims)
    text = TEXT.format(
        claims="\n".join(claim_rows(claims, runs)),
        gain=render([gain_of_draws(rows)], "markdown"),
        notes=(CLAIMS / "notes.md").read_text(),
    )
    (DOCS / "claims.md").write_text(text)


if __name__ == "__main__":
    main()
