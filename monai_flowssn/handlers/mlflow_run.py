"""One MLflow run per training, or per evaluation that stands alone."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from filelock import FileLock
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.utils import ensure_tuple, is_scalar

from . import mlflow_links as links
from .mlflow_database import sqlite_folder, try_once
from .run_facts import calling_config, file_hash, run_facts, to_yaml
from .sigterm import catch_sigterm, release_sigterm

logger = logging.getLogger(__name__)

# Defaults for what the user's environment leaves open. MLflow retries for minutes, and reports its use to its makers.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_SECONDS_BETWEEN_FLUSHES = 10.0


class MLflowRunHandler:
    """Log a training with its validations, or an evaluation alone, as one new MLflow run.

    Attach the same handler to the trainer and to its evaluator: the engine that starts first owns the run, the other
    one writes into it. The run ends as FINISHED, as FAILED on an exception, and as KILLED on Ctrl-C, SIGTERM or when
    the process ends without a word; the exception goes on. MLflow trouble of any kind costs one warning and never the
    training. To continue a run, save this handler in the checkpoint and load it before training. Runs of this machine that were
    left behind by a SIGKILL end as KILLED when the next one begins.

    What uses a model refers to the training that wrote it, which is found by the hash of the weights, and has its MLflow model as
    input. It does not stand under it, because MLflow's page compares no runs that are folded away.

    Args:
        experiment_name: MLflow experiment, made if there is none.
        tracking_uri: e.g. ``sqlite:///out/mlflow.db``; None logs nothing.
        name: of the run.
        study: name of a run under which this one stands, made if there is none.
        params: further parameters, flat; what the engine itself tells wins.
        tags: what makes runs comparable: ``method``, ``data``, ``convention``, ``n``; ``run: train`` on what others may use.
        artifacts: artifact folder -> glob pattern(s) of the files that go there when the run ends.
        images: folder of panels (``*_panel.png``), of which up to 16 are logged, and four shown.
        checkpoint: weights that a training writes, kept as a model for ``mlflow.pyfunc``, or that an evaluation uses.
        manifest: the data set's manifest; its groups are logged as data sets, and its hash as ``data_fingerprint``.
        config: the configuration; by default that of the MONAI ``ConfigParser`` which builds this handler, overrides
            of the command line included.
        loss_every: log the training loss at every so many iterations.
        output_transform: ``engine.state.output`` -> loss, or a dict of losses, logged as ``train_<name>``; by default
            the loss and, where the network returns them, the terms that it is made of.
    """

    def __init__(
        self,
        experiment_name: str,
        tracking_uri: str | None,
        *,
        name: str | None = None,
        study: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        artifacts: Mapping[str, str | Sequence[str]] | None = None,
        images: str | Path | None = None,
        checkpoint: str | Path | None = None,
        manifest: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
        loss_every: int = 10,
        output_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.experiment_name, self.tracking_uri = experiment_name, tracking_uri
        self.name, self.study = name, study
        self.params, self.tags, self.artifacts = dict(params or {}), dict(tags or {}), dict(artifacts or {})
        self.images, self.checkpoint, self.manifest = images, checkpoint, manifest
        self.config = calling_config() if config is None else config
        self.loss_every, self.output_transform = loss_every, output_transform or _losses
        self.run_id: Any = None  # until a run begins
        self._resume_id: str | None = None
        self._client: Any = None
        self._owner: Engine | None = None
        self._orphan: weakref.finalize | None = None
        self._points: list[tuple[str, Any, int, int]] = []
        self._logged: dict[str, int] = {}  # last steps of a continued run: those behind its checkpoint come again
        self._flushed = self._written = 0.0
        self._down = self._warned = False

    def state_dict(self) -> dict[str, str | None]:
        """The id of the run."""
        return {"run_id": self.run_id or self._resume_id}

    def load_state_dict(self, state_dict: Mapping[str, str | None]) -> None:
        """Continue the run of :meth:`state_dict` instead of making a new one."""
        self._resume_id = state_dict["run_id"]

    def attach(self, engine: Engine) -> None:
        """Follow a trainer or an evaluator; of several processes the first one logs, the others give it their losses."""
        if self.tracking_uri is None:
            return
        if idist.get_rank() == 0:
            # Not STARTED: a CheckpointLoader, wherever it stands in the list, has then told which run to continue.
            engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
            engine.add_event_handler(Events.COMPLETED, self._nothing_left)
        elif not isinstance(engine, Evaluator):
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.loss_every), self._mean_losses)

    def _nothing_left(self, engine: Engine) -> None:
        """Finish the run of a training that was killed when all its epochs were done."""
        if self._owner is None and self._resume_id is not None:
            self._epoch_started(engine)
            self._completed(engine)

    def _epoch_started(self, engine: Engine) -> None:
        if not engine.has_event_handler(self._epoch_completed, Events.EPOCH_COMPLETED):
            self._listen(engine)
        if self._owner is None:
            self._owner, self._down, self._points, self._flushed = engine, False, [], time.monotonic()
            self._attempt(self._open, engine)
            self._resume_id = None if self._orphan else self._resume_id

    def _listen(self, engine: Engine) -> None:
        """Attach the rest behind all other handlers, so that their metrics and files are there to be logged."""
        if not isinstance(engine, Evaluator):
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.loss_every), self._iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self._completed)
        # ignite stops at the first handler that raises (MONAI's do), so ours has to be the first; and where there is
        # any handler, ignite itself no longer raises, so the last one has to.
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._exception_raised)
        handlers = engine._event_handlers[Events.EXCEPTION_RAISED]
        handlers.insert(0, handlers.pop())
        engine.add_event_handler(Events.EXCEPTION_RAISED, _raise)

    def _iteration_completed(self, engine: Any) -> None:
        self._add({**self._mean_losses(engine), "lr": engine.optimizer.param_groups[0]["lr"]}, engine.state.iteration)
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self._attempt(self._flush)

    def _mean_losses(self, engine: Any) -> dict[str, Any]:
        """Return the losses of the whole batch; every process has to ask for them."""
        losses = self.output_transform(engine.state.output)
        losses = losses if isinstance(losses, Mapping) else {"loss": losses}
        processes = idist.get_world_size()
        if processes > 1:
            losses = {
                name: torch.as_tensor(value, device=idist.device()).detach().clone() for name, value in losses.items()
            }
            losses = {name: idist.all_reduce(value) / processes for name, value in losses.items()}
        return {f"train_{name}": value for name, value in losses.items()}

    def _epoch_completed(self, engine: Engine) -> None:
        # the one result of an evaluation has no course: at step 0 MLflow draws it as a bar
        alone = engine is self._owner and isinstance(engine, Evaluator)
        self._add(engine.state.metrics, 0 if alone else engine.state.epoch)
        self._attempt(self._flush)
        if not isinstance(engine, Evaluator):
            self._attempt(self._tag_checkpoint)

    def _completed(self, engine: Engine) -> None:
        if engine is self._owner:
            self._finish("FINISHED")

    def _exception_raised(self, engine: Engine, error: BaseException) -> None:
        if engine is self._owner:
            self._finish("FAILED" if isinstance(error, Exception) else "KILLED")

    def _attempt(self, action: Callable[..., Any], *args: Any) -> None:
        """Do it unless MLflow has failed before; a failure is told once and goes no further."""
        if self._down:
            return
        try:
            action(*args)
        except Exception as error:
            self._down = True
            if not self._warned:
                self._warned = True
                warnings.warn(f"MLflow at {self.tracking_uri} failed; going on without it: {error}", stacklevel=2)

    def _open(self, engine: Engine) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # slow to import, and not needed by processes that do not log

        self._logged = {}
        folder = sqlite_folder(self.tracking_uri)
        try_once(str(self.tracking_uri))
        # MLflow's first use of a database sets it up, and runs that do so at the same time break each other's work.
        with contextlib.nullcontext() if folder is None else FileLock(folder / ".mlflow.lock", timeout=120):
            self._client = MlflowClient(tracking_uri=self.tracking_uri)
            experiment = self._experiment_id()
            links.close_left_behind(self._client, experiment)
            self.run_id = self._continued_run() or self._new_run(experiment, isinstance(engine, Evaluator))
        # Called when this handler or the process ends without a status; it must not refer to the handler.
        self._orphan = weakref.finalize(self, _terminate, self._client, self.run_id, "KILLED")
        catch_sigterm()
        if self.manifest is not None:
            self._client.log_artifact(self.run_id, str(self.manifest), "data")
            links.log_datasets(self._client, self.run_id, Path(self.manifest), self.tags.get("data", "data"))
        fingerprint = {} if self.manifest is None else {"data_fingerprint": file_hash(self.manifest)}
        self._log_params({**self.params, **run_facts(engine), **fingerprint})
        if (text := to_yaml(self.config)) is not None:
            self._client.log_text(self.run_id, text, "config.yaml")

    def _continued_run(self) -> str | None:
        with contextlib.suppress(Exception):  # a checkpoint may come from another server: then it is a new run
            if self._resume_id is not None:
                self._client.update_run(self._resume_id, status="RUNNING")
                for name in self._client.get_run(self._resume_id).data.metrics:
                    points = self._client.get_metric_history(self._resume_id, name)
                    self._logged[name] = max(point.step for point in points)
                for name, value in links.source_tags().items():
                    self._client.set_tag(self._resume_id, name, value)
                return self._resume_id
        return None

    def _new_run(self, experiment: str, uses: bool) -> str:
        """Make a run, of a training or of what uses a model."""
        tags = {**links.source_tags(), "continues": self._resume_id, **self.tags}
        training = None
        if uses and self.checkpoint is not None:
            tags[links.CHECKPOINT] = links.sha256(Path(self.checkpoint))
            training = links.training_of(self._client, experiment, tags[links.CHECKPOINT])
            tags |= links.training_tags(training)
        if self.study is not None:
            tags[links.PARENT] = links.study_run(self._client, experiment, self.study)
        tags = {name: str(value) for name, value in tags.items() if value is not None}
        run_id = self._client.create_run(experiment, run_name=self.name, tags=tags).info.run_id
        if training is not None:
            links.use_model(self._client, run_id, training)
        return run_id

    def _experiment_id(self) -> str:
        folder = sqlite_folder(self.tracking_uri)
        location = None if folder is None else (folder / "mlruns").as_uri()  # a database holds no files
        experiment = self._client.get_experiment_by_name(self.experiment_name)
        if experiment is None:
            try:
                # without the kind MLflow's page opens the view for language models, in which no run is to be seen
                kind = {"mlflow.experimentKind": "custom_model_development"}
                return self._client.create_experiment(self.experiment_name, artifact_location=location, tags=kind)
            except Exception:  # a run that started at the same time may have made it
                experiment = self._client.get_experiment_by_name(self.experiment_name)
                if experiment is None:
                    raise
        return experiment.experiment_id

    def _log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self.run_id).data.params  # of a continued run; MLflow refuses other values
        new = [Param(name, str(value)) for name, value in params.items() if name not in known]
        for name, value in params.items():
            if known.get(name, str(value)) != str(value):
                logger.warning("the training is resumed with %s = %s; it began with %s", name, value, known[name])
                self._client.set_tag(self.run_id, f"resumed.{name}", str(value))
        for start in range(0, len(new), 100):  # the REST interface takes 100 parameters or 1000 metrics at a time
            self._client.log_batch(self.run_id, params=new[start : start + 100])

    def _add(self, values: Mapping[str, Any], step: int) -> None:
        if self._orphan is None:
            return
        now = int(time.time() * 1000)
        for name, value in values.items():
            if is_scalar(value):  # tensors are read when they are sent: no wait for the device at every step
                self._points.append((name, value.detach() if isinstance(value, torch.Tensor) else value, now, step))

    def _flush(self) -> None:
        from mlflow.entities import Metric

        self._flushed = time.monotonic()
        new = (point for point in self._points if point[3] > self._logged.get(point[0], -1))
        points = [Metric(name, float(value), now, step) for name, value, now, step in new]
        for start in range(0, len(points), 1000):
            self._client.log_batch(self.run_id, metrics=points[start : start + 1000])
        self._points = []

    def _tag_checkpoint(self) -> None:
        """Tell which weights this training wrote last, so that what uses them finds it."""
        path = None if self.checkpoint is None else Path(self.checkpoint)
        if path is not None and path.is_file() and path.stat().st_mtime != self._written:
            self._written = path.stat().st_mtime
            self._client.set_tag(self.run_id, links.CHECKPOINT, links.sha256(path))

    def _log_artifacts(self) -> None:
        for folder, patterns in self.artifacts.items():
            for pattern in ensure_tuple(patterns or ()):
                for path in sorted(filter(os.path.isfile, glob.glob(str(pattern), recursive=True))):
                    self._client.log_artifact(self.run_id, path, folder)
        if self.images is not None:
            panels = sorted(Path(self.images).rglob("*_panel.png"))
            if panels:
                links.log_panels(self._client, self.run_id, panels[:: max(1, len(panels) // 16)][:16])

    def _log_model(self) -> None:
        if self.checkpoint is not None and Path(self.checkpoint).is_file() and self.config is not None:
            self._tag_checkpoint()
            links.log_model(self._client, self.run_id, self.config, Path(self.checkpoint))

    def _finish(self, status: str) -> None:
        owner, self._owner = self._owner, None
        if self._orphan is None:
            return
        self._down = False  # one more chance: what a short outage held back is sent now
        self._attempt(self._flush)
        self._attempt(self._log_artifacts)
        if not isinstance(owner, Evaluator):
            self._attempt(self._log_model)
        self._down = False
        self._attempt(self._client.set_terminated, self.run_id, status)
        self._orphan.detach()
        self._orphan = None
        release_sigterm()


def _losses(output: Mapping[str, Any]) -> dict[str, Any]:
    terms = output.get("pred")
    return {**(terms if isinstance(terms, Mapping) else {}), "loss": output["loss"]}


def _raise(error: BaseException) -> None:
    raise error


def _terminate(client: Any, run_id: str, status: str) -> None:
    with contextlib.suppress(Exception):
        client.set_terminated(run_id, status)
