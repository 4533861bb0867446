"""What a bundle says about itself, card and metadata, from what its training left behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from monai_flowssn import __version__
from monai_flowssn.cli.shipped import folder
from monai_flowssn.reports.runs import Run, read_table
from monai_flowssn.workflows import Data

__all__ = ["Training", "card", "interval_text", "metadata"]


class Training:
    """What a training left beside its weights, as far as it is there.

    Args:
        model: its ``RUN/models/model.pt``, or ``RUN/models/fold_3/model.pt``.
        table: ``per_case.csv`` of an evaluation of these weights; by default the run's own, if it is newer than the weights.
    """

    def __init__(self, model: Path, table: Path | None = None) -> None:
        fold = model.parent.name if model.parent.name.startswith("fold_") else ""
        root = model.parents[2 if fold else 1]
        manifest, last = root / "runs" / "train" / fold / "manifest.json", model.with_name("last.ckpt")
        self.groups = json.loads(manifest.read_text(encoding="utf-8"))["groups"] if manifest.is_file() else {}
        self.state = torch.load(last, map_location="cpu", weights_only=True, mmap=True) if last.is_file() else {}
        own = root / "runs" / "evaluate" / fold / "per_case.csv"
        if table is None and own.is_file() and own.stat().st_mtime > model.stat().st_mtime:
            table = own
        self.table = None if table is None else read_table(table)

    @property
    def cases(self) -> str:
        """What it was on."""
        told = [
            f"{name}: {group['cases']} cases of {group['patients']} patients, up to {group['raters']} raters"
            for name, group in self.groups.items()
        ]
        return "; ".join(told) or "sizes unknown: no manifest lies beside the weights"

    @property
    def length(self) -> str:
        """How long it was."""
        if not self.state:
            return "unknown: no last.ckpt lies beside the weights"
        return f"{self.state['trainer']['iteration']:,} steps, {self.state['budget']['spent'] / 60:.0f} minutes"

    @property
    def test(self) -> dict[str, list[float]]:
        """Every metric of the evaluation: its mean, and the bootstrap interval over patients."""
        if self.table is None:
            return {}
        run = Run("", (self.table,))
        return {name: [round(value, 4) for value in run.interval(name)] for name in run.metrics}


def metadata(source: Mapping[str, Any], size: Sequence[int], data: Data, about: Training) -> dict[str, Any]:
    """Return the ``metadata.json`` of a bundle: that of its method, with versions, sizes and results of this training.

    Args:
        source: metadata of the bundle that was trained.
        size: ``spatial_size`` (*S).
        data: what it was trained on.
        about: the training.
    """
    made = json.loads(json.dumps(source))
    made |= {f"{name}_version": _version(name, "") for name in ("monai", "numpy")}
    made["pytorch_version"] = _version("torch", "")
    required = {name: _version(name, known) for name, known in source["required_packages_version"].items()}
    made["required_packages_version"] = {**required, "monai_flowssn": __version__}
    image, pred = made["network_data_format"]["inputs"]["image"], made["network_data_format"]["outputs"]["pred"]
    shared = {"spatial_shape": list(size), "is_patch_data": data.crops == "anywhere"}
    image.update(shared, num_channels=data.channels, channel_def={str(i): f"image {i}" for i in range(data.channels)})
    pred.update(shared, num_channels=data.num_classes)
    if not data.name.startswith("lidc"):
        image["modality"] = "n/a"
        pred["channel_def"] = {str(k): f"class {k}" if k else "background" for k in range(data.num_classes)}
    made["data_source"] = f"{data.name} ({about.cases})"
    made["eval_metrics"] = {name: mean for name, (mean, _, _) in about.test.items()}
    return made


def card(made: Mapping[str, Any], weights: Path, size: Sequence[int], data: Data, about: Training, **known: str) -> str:
    """Return the text of a card.

    Args:
        made: the metadata of the bundle.
        weights: its ``model.pt``.
        size: ``spatial_size`` (*S).
        data: what it was trained on.
        about: the training.
        known: the rest of ``configs/package_card.md``.
    """
    state = torch.load(weights, map_location="cpu", weights_only=True)
    test = "Not evaluated after this training."
    if about.table is not None:
        rows = [f"| `{name}` | {interval_text(values)} |" for name, values in about.test.items()]
        head = f"{len(about.table.cases)} cases of {len(set(about.table.patients))} patients."
        test = "\n".join([head, "", "| metric | mean [95 % bootstrap interval over patients] |", "|---|---|", *rows])
    template = (folder("configs") / "package_card.md").read_text(encoding="utf-8")
    low_and_high = "from the lowest to the highest of each image"
    return template.format(
        **{**made, "references": "; ".join(made["references"]), "version": __version__},
        parameters=sum(value.numel() for value in state.values()),
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        channels=data.channels,
        num_classes=data.num_classes,
        size="x".join(map(str, size)),
        shape=", ".join(map(str, size)),
        intensities=low_and_high if data.intensity_range is None else f"clipped to {list(data.intensity_range)}",
        training=about.length,
        test=test,
        **known,
    )


def interval_text(values: Sequence[float]) -> str:
    """Return a mean with its interval, such as ``0.211 [0.181, 0.250]``."""
    return "{:.3f} [{:.3f}, {:.3f}]".format(*values)


def _version(package: str, known: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return known
