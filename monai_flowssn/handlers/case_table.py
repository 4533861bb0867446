"""The table of an evaluation: one row per case, one column per metric."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.utils import string_list_all_gather
from torch import Tensor

from monai_flowssn.files import written_whole
from monai_flowssn.handlers.metrics import CaseMetricHandler


def as_cell(name: str) -> str:
    """Return a name as a cell of a csv file, which a spreadsheet shows and does not compute: ``=1+1`` becomes ``'=1+1``."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


class CaseTable:
    """Write ``per_case.csv``: case, patient and every metric that keeps its details, at full precision.

    What a paired comparison or a bootstrap over patients needs. MONAI's ``MetricsSaver`` writes one file per metric, with four
    decimals and no patient. A metric that is pooled over cases has a column for each part of its sums, ``name/1`` ..., and
    ``name/weight`` (:func:`~monai_flowssn.metrics.pool`). An evaluation in one process that fails leaves the cases before as
    ``per_case_unfinished.csv``. Names that a spreadsheet would compute begin with an apostrophe (:func:`as_cell`).

    Args:
        save_dir: folder of the file.
        metrics: the handlers that are attached, by name.
    """

    filename = "per_case.csv"
    unfinished = "per_case_unfinished.csv"

    def __init__(self, save_dir: str | Path, metrics: Mapping[str, CaseMetricHandler]) -> None:
        self.folder, self.metrics = Path(save_dir), metrics
        self._names: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator that decollates its batches into items with ``case`` and ``patient``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._names.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._keep)

    def _collect(self, engine: Any) -> None:
        for item in engine.state.batch:
            place = len(self._names) * idist.get_world_size() + idist.get_rank()  # as DistributedSampler deals them out
            # one string per case, because that is what MONAI gathers over processes
            self._names.append(json.dumps([place, str(item["case"]), str(item.get("patient", item["case"]))]))

    def _finish(self, engine: Any) -> None:
        names = string_list_all_gather(self._names)
        details = _columns(engine.state.metric_details)
        if idist.get_rank() == 0:
            self._write(self.folder / self.filename, names, details)
            (self.folder / self.unfinished).unlink(missing_ok=True)

    def _keep(self, engine: Engine, error: BaseException) -> None:
        if self._names and idist.get_world_size() == 1:
            details = _columns({name: handler.metric_fn.get_buffer() for name, handler in self.metrics.items()})
            path = self.folder / self.unfinished
            self._write(path, self._names, details)
            engine.logger.error("the evaluation stopped; its %d cases before are in %s", len(self._names), path)
        raise error  # where an exception has a handler, ignite leaves the raising to it

    @staticmethod
    def _write(path: Path, names: list[str], details: dict[str, list[float]]) -> None:
        with written_whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "patient", *details])
            for row, (_, *name) in sorted(enumerate(map(json.loads, names)), key=lambda entry: entry[1]):
                writer.writerow([*map(as_cell, name), *(repr(values[row]) for values in details.values())])


def _columns(details: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Values by column of metrics (cases,), or (cases, J + 1) where they are pooled."""
    columns = {}
    for name, values in details.items():
        if values.ndim == 1:
            columns[name] = values.tolist()
        else:
            ends = [*map(str, range(1, values.shape[1])), "weight"]
            columns |= {f"{name}/{end}": part.tolist() for end, part in zip(ends, values.T, strict=True)}
    return columns
