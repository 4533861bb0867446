"""Pictures of an evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

from monai_flowssn.transforms import SavePaneld


class CasePanels:
    """Write the panels (:class:`~monai_flowssn.transforms.SavePaneld`) of some cases at even distances.

    Args:
        save_dir: folder of the panels; what it holds goes.
        cases: number of panels; 0 for none.
    """

    def __init__(self, save_dir: str | Path, *, cases: int = 4) -> None:
        self.folder, self.cases = Path(save_dir), cases
        self._seen, self._shown = 0, set[int]()

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator whose postprocessing is :class:`~monai_flowssn.transforms.DrawsToMapsd`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def _start(self, engine: Any) -> None:
        if idist.get_rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        idist.barrier()
        cases = len(engine.state.dataloader.dataset)
        self._seen, self._shown = 0, set(np.linspace(0, cases - 1, min(self.cases, cases)).astype(int).tolist())

    def _write(self, engine: Any) -> None:
        for item, maps in zip(engine.state.batch, engine.state.output):
            place = self._seen * idist.get_world_size() + idist.get_rank()  # as DistributedSampler deals them out
            self._seen += 1
            if place in self._shown:
                SavePaneld(self.folder)({**item, **maps})
