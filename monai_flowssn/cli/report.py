"""Print the table of one or several evaluations, with the interval over patients.

    monai-flowssn report RUN/per_case.csv [OTHER/per_case.csv ...]
    monai-flowssn report --pool my_run/runs/evaluate/fold_*/per_case.csv

With --pool the tables are one, such as the folds of a cross-validation, in which every case is tested once.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import torch

from monai_flowssn.metrics import bootstrap_interval


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of cases."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ValueError(f"{path} does not open ({error.strerror}); give the per_case.csv of an evaluation.") from error
    if not rows or "patient" not in rows[0]:
        raise ValueError(f"{path} is no table of cases; give the per_case.csv of an evaluation.")
    return rows


def pool(tables: list[list[dict[str, str]]]) -> list[dict[str, str]]:
    """Return the rows of all tables, of the same metrics and different cases, as one."""
    rows = [row for table in tables for row in table]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("the tables have different metrics; pool evaluations with the same options.")
    twice = [case for case, times in Counter(row["case"] for row in rows).items() if times > 1]
    if twice:
        raise ValueError(f"{len(twice)} cases are in two tables ({', '.join(twice[:5])}); pool different folds.")
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tables."""
    parser.add_argument("tables", type=Path, nargs="+", help="per_case.csv of an evaluation")
    parser.add_argument("--pool", action="store_true", help="take all tables as one")


def run(arguments: argparse.Namespace) -> None:
    """Print."""
    tables = [read(path) for path in arguments.tables]
    names = [str(path) for path in arguments.tables]
    if arguments.pool:
        tables, names = [pool(tables)], [f"{len(tables)} tables"]
    for name, rows in zip(names, tables):
        patients = [row["patient"] for row in rows]
        about = "two empty masks have IoU 1 unless a name says drop or zero; foreground only"
        print(f"{name}: {len(rows)} cases of {len(set(patients))} patients; {about}")
        print(f"  {'metric (convention, number of draws)':38} {'mean':>8}  95 % interval over patients")
        for metric in list(rows[0])[2:]:
            interval = bootstrap_interval(torch.tensor([float(row[metric]) for row in rows]), patients)
            print(f"  {metric:38} {interval.mean:8.4f}  [{interval.low:.4f}, {interval.high:.4f}]")
