"""Print the tables of one or several evaluations, with intervals over patients.

    monai-flowssn report RUN/per_case.csv
    monai-flowssn report ssn=RUN/per_case.csv unet=OTHER/per_case.csv --published lidc
    monai-flowssn report ssn=SEED0/per_case.csv ssn=SEED1/per_case.csv unet=OTHER/per_case.csv --form latex
    monai-flowssn report --pool my_run/runs/evaluate/fold_*/per_case.csv

Several runs stand side by side, with paired differences to the first. Tables of one name are trainings of one method that
differ in the seed alone. With --pool the tables are one, such as the folds of a cross-validation, in which every case is tested
once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_flowssn.reports import PUBLISHED, Run, pool_tables, read_runs, read_table, report
from monai_flowssn.reports.grid import FORMS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tables."""
    parser.add_argument("tables", nargs="+", metavar="[NAME=]PATH", help="per_case.csv of an evaluation")
    parser.add_argument("--pool", action="store_true", help="take all tables as one")
    parser.add_argument("--published", choices=list(PUBLISHED), help="lay published rows beside these")
    parser.add_argument("--form", choices=FORMS, default="markdown")


def run(arguments: argparse.Namespace) -> None:
    """Print."""
    if arguments.pool:
        pooled = pool_tables([read_table(Path(path)) for path in arguments.tables])
        runs = [Run(pooled.name, (pooled,))]
    else:
        runs = read_runs(arguments.tables)
    print(report(runs, published=arguments.published, form=arguments.form))
