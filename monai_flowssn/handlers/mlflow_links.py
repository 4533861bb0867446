"""How MLflow's runs belong together: what uses a model with its training, a training with its study, a run with its process."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import platform
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PARENT = "mlflow.parentRunId"  # under which MLflow's page shows a run
CHECKPOINT = "checkpoint"  # tag: SHA-256 of the weights that a training wrote, or that are used
TRAINING = "training"
PROCESS = "process"
STUDY = "study"
NOTE = "mlflow.note.content"  # the description in a run's page, Markdown
SHOWN, WIDTH = 4, 720  # panels in it, and their pixels


def source_tags() -> dict[str, str]:
    """Return MLflow's own tags of where a run comes from: the command, the user, and the process that is to end it."""
    words = [Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]] if sys.orig_argv else sys.argv
    # MLflow's pages show what follows the last slash
    tags = {"command": shlex.join(words), "mlflow.source.name": re.sub(r"[^\s'\"\[=,]*/", "", " ".join(words))}
    with contextlib.suppress(KeyError, OSError):  # a user without a name, as in containers
        tags["mlflow.user"] = getpass.getuser()
    process = process_name(os.getpid())
    return tags if process is None else {**tags, PROCESS: process}


def process_name(pid: int) -> str | None:
    """Return what no other process is called, not even one that gets the same number later; None where the system has no /proc.

    Args:
        pid: number of a process.
    """
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')} {pid} {started}"
    except OSError:
        return None


def close_left_behind(client: Any, experiment_id: str) -> None:
    """End as KILLED the running runs of this machine whose processes are gone, at the time of the last that they told.

    Args:
        client: of MLflow.
        experiment_id: whose runs are looked at.
    """
    own = process_name(os.getpid())
    if own is None:
        return
    machine = own.rsplit(" ", 2)[0]
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        name = run.data.tags.get(PROCESS, "")
        place, _, process = name.rpartition(" ")[0].rpartition(" ")
        if place == machine and process_name(int(process)) != name:
            told = [
                point.timestamp for key in run.data.metrics for point in client.get_metric_history(run.info.run_id, key)
            ]
            client.set_terminated(run.info.run_id, "KILLED", end_time=max(told, default=run.info.start_time))


def study_run(client: Any, experiment_id: str, name: str) -> str:
    """Return the id of the run under which those of one study stand; it is made if there is none.

    Args:
        client: of MLflow.
        experiment_id: where it is.
        name: of the study.
    """

    def oldest() -> list[Any]:
        kept = name.replace("'", "")
        return client.search_runs(
            [experiment_id], f"tags.{STUDY} = '{kept}'", max_results=1, order_by=["start_time ASC", "run_id ASC"]
        )

    if not oldest():
        made = client.create_run(experiment_id, run_name=name, tags={STUDY: name.replace("'", "")})
        client.set_terminated(made.info.run_id, "FINISHED")
        if oldest()[0].info.run_id != made.info.run_id:  # that of a run that started at the same time
            client.delete_run(made.info.run_id)
    return oldest()[0].info.run_id


def training_of(client: Any, experiment_id: str, checkpoint: str) -> Any | None:
    """Return the newest training that wrote these weights, if this server knows it.

    Args:
        client: of MLflow.
        experiment_id: where it is looked for.
        checkpoint: hash of the weights.
    """
    wrote = f"tags.{CHECKPOINT} = '{checkpoint}' and tags.run = 'train'"
    found = client.search_runs([experiment_id], wrote, max_results=1, order_by=["start_time DESC"])
    return found[0] if found else None


def training_tags(training: Any | None) -> dict[str, str]:
    """Return what leads from a run to its training: the id, and a link in the run's page.

    Args:
        training: run of the training, if it is known.
    """
    if training is None:
        return {}
    page = f"#/experiments/{training.info.experiment_id}/runs/{training.info.run_id}"
    text = f"Uses the weights of the training [{training.info.run_name}]({page})."
    return {TRAINING: training.info.run_id, NOTE: text}


def use_model(client: Any, run_id: str, training: Any) -> None:
    """Make the model of a training an input of a run.

    Args:
        client: of MLflow.
        run_id: of what uses it.
        training: run of the training, which is without one as long as it goes on.
    """
    from mlflow.entities import LoggedModelInput

    models = training.outputs.model_outputs if training.outputs else []
    if models:
        client.log_inputs(run_id, models=[LoggedModelInput(models[-1].model_id)])


def log_model(client: Any, run_id: str, config: Mapping[str, Any], weights: Path) -> None:
    """Keep weights and their config as the MLflow model of a training.

    Args:
        client: of MLflow.
        run_id: of the training.
        config: of the training, not parsed.
        weights: its ``model.pt``.
    """
    from mlflow.entities import LoggedModelOutput

    from monai_flowssn.mlflow_model import save_model

    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder, "model"), config, weights)
        experiment = client.get_run(run_id).info.experiment_id
        model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
        client.log_model_artifacts(model.model_id, str(Path(folder, "model")))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])


def log_datasets(client: Any, run_id: str, manifest: Path, name: str) -> None:
    """Log the groups of a manifest as the data sets of a run, with their fingerprints and counts.

    Args:
        client: of MLflow.
        run_id: of the run.
        manifest: file of :func:`~monai_flowssn.data.write_manifest`, which is an artifact of the run.
        name: of the data set.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": f"runs:/{run_id}/data/{manifest.name}"})
    groups = json.loads(manifest.read_text(encoding="utf-8")).get("groups", {})
    client.log_inputs(
        run_id,
        [
            DatasetInput(
                Dataset(f"{name}-{group}", about["fingerprint"], "local", source, profile=_counts(about)),
                [InputTag("mlflow.data.context", group)],
            )
            for group, about in groups.items()
        ],
    )


def _counts(about: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in about.items() if isinstance(value, int)})


def log_panels(client: Any, run_id: str, paths: Sequence[Path]) -> None:
    """Log pictures as artifacts, and show the first of them in the description of the run.

    Not by steps of MLflow's ``log_image``, whose cards have so much text of the parameters that no picture is to be seen.

    Args:
        client: of MLflow.
        run_id: of the run.
        paths: of panels, ``<case>_panel.png``; at least one.
    """
    from PIL import Image, ImageOps

    for path in paths:
        client.log_artifact(run_id, str(path), "panels")
    small = []  # the description has no way to make them so
    for path in paths[:SHOWN]:
        with Image.open(path) as file:
            small.append(ImageOps.contain(file.convert("RGB"), (WIDTH, WIDTH)))
    sheet = Image.new("RGB", (WIDTH, sum(picture.height for picture in small)), "white")
    for i, picture in enumerate(small):
        sheet.paste(picture, (0, sum(above.height for above in small[:i])))
    client.log_image(run_id, sheet, artifact_file="panels.png")
    said = client.get_run(run_id).data.tags.get(NOTE, "").partition("\n")[0]
    client.set_tag(run_id, NOTE, f"{said}\n\n![panels](get-artifact?path=panels.png&run_uuid={run_id})".strip())


def sha256(path: Path) -> str:
    """Return the hash of a file of any size."""
    with path.open("rb") as file:
        total = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            total.update(block)
        return total.hexdigest()
