"""Evaluations as tables of cases."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_flowssn.metrics.bootstrap import Interval, interval_over_seeds


@dataclass(frozen=True)
class Table:
    """The table of one evaluation.

    Args:
        name: what to call it.
        cases: the name of each case.
        patients: the patient of each case.
        metrics: by name, which says convention and N, the value per case (cases,), or the parts of a pooled metric
            (cases, J + 1).
    """

    name: str
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    metrics: dict[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """A method: one evaluation, or those of trainings that differ in the seed alone, on the same cases.

    Args:
        name: what to call it.
        tables: the evaluations.
    """

    name: str
    tables: tuple[Table, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases, in order."""
        return self.tables[0].cases

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each case."""
        return self.tables[0].patients

    @property
    def metrics(self) -> list[str]:
        """The metrics that all trainings have."""
        return [name for name in self.tables[0].metrics if all(name in table.metrics for table in self.tables)]

    def values(self, metric: str) -> list[np.ndarray]:
        """The values of a metric, one array per training."""
        return [table.metrics[metric] for table in self.tables]

    def interval(self, metric: str) -> Interval:
        """Value of a metric with its interval over patients, and over trainings where there are several."""
        return interval_over_seeds(self.values(metric), self.patients)

    def minus(self, other: Run, metric: str) -> Interval:
        """Paired difference to another run on the same cases."""
        return interval_over_seeds(self.values(metric), self.patients, minus=other.values(metric))


def read_table(path: Path, name: str | None = None) -> Table:
    """Read the ``per_case.csv`` of an evaluation, in the order of the names of its cases.

    Raises:
        ValueError: if it is no such table, a case is in it twice, or a cell is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} does not open ({error}); give the per_case.csv of an evaluation.") from error
    if header[:2] != ["case", "patient"] or not rows:
        raise ValueError(f"{path} is no table of cases; give the per_case.csv of an evaluation.")
    rows.sort(key=lambda row: row[0])
    cases = tuple(row[0] for row in rows)
    if twice := [case for case, times in Counter(cases).items() if times > 1]:
        raise ValueError(f"{path} has {len(twice)} cases twice ({_some(twice)}); names must tell cases apart.")
    try:
        values = np.array([row[2:] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; every cell behind case and patient must be a number.") from error
    columns = dict(zip(header[2:], values.T, strict=True))
    return Table(str(path) if name is None else name, cases, tuple(row[1] for row in rows), _metrics(columns))


def pool_tables(tables: Sequence[Table]) -> Table:
    """Return tables of the same metrics and different cases, such as the folds of a cross-validation, as one.

    Raises:
        ValueError: if the metrics differ, or a case is in two tables.
    """
    first = tables[0]
    if any(table.metrics.keys() != first.metrics.keys() for table in tables):
        raise ValueError("the tables have different metrics; pool evaluations with the same options.")
    cases = [case for table in tables for case in table.cases]
    if twice := [case for case, times in Counter(cases).items() if times > 1]:
        raise ValueError(f"{len(twice)} cases are in two tables ({_some(twice)}); pool different folds.")
    metrics = {name: np.concatenate([table.metrics[name] for table in tables]) for name in first.metrics}
    patients = [patient for table in tables for patient in table.patients]
    return Table(f"{len(tables)} tables", tuple(cases), tuple(patients), metrics)


def read_runs(arguments: Iterable[str]) -> list[Run]:
    """Read runs as they are named on a command line.

    Args:
        arguments: ``NAME=PATH`` or ``PATH`` of a ``per_case.csv`` each; paths of one name are trainings of one method that
            differ in the seed alone.

    Raises:
        ValueError: if trainings of one method were evaluated on different cases.
    """
    named: dict[str, list[Table]] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).is_file():  # a folder may have the sign in its name
            name, path = argument, argument
        named.setdefault(name, []).append(read_table(Path(path), argument))
    runs = [Run(name, tuple(tables)) for name, tables in named.items()]
    for run in runs:
        for table in run.tables:
            if reason := other_cases(run.tables[0], table):
                raise ValueError(f"the trainings of {run.name} were evaluated on different cases: {reason}.")
    return runs


def other_cases(a: Table | Run, b: Table | Run) -> str:
    """Say how the cases of two differ; nothing where they are the same."""
    if a.cases != b.cases:
        only_a, only_b = sorted(set(a.cases) - set(b.cases)), sorted(set(b.cases) - set(a.cases))
        lacks = [f"{len(x)} only in {y.name} ({_some(x)})" for x, y in ((only_a, a), (only_b, b)) if x]
        return " and ".join(lacks)
    if a.patients != b.patients:
        case = next(c for c, p, q in zip(a.cases, a.patients, b.patients) if p != q)
        return f"{case} is of another patient in {b.name} than in {a.name}"
    return ""


def _metrics(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns ``name/1`` ... ``name/weight`` as the parts of one pooled metric."""
    parts: dict[str, list[np.ndarray]] = {}
    for column, values in columns.items():
        parts.setdefault(column.partition("/")[0], []).append(values)
    return {name: values[0] if name in columns else np.stack(values, 1) for name, values in parts.items()}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
