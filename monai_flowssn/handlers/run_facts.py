"""What one experiment is told apart from another by."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from monai.utils import get_seed

_PACKAGES = ("monai_flowssn", "monai", "torch", "pytorch-ignite", "numpy", "mlflow")


def run_facts(engine: Any) -> dict[str, Any]:
    """What a run is told apart by: seed, length, rate, machine, versions, commit of the folder it runs in, parameter counts.

    Args:
        engine: MONAI trainer or evaluator.
    """
    device = getattr(engine.state, "device", None) or torch.device("cpu")
    facts = {
        "seed": get_seed(),
        **_training(engine),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "machine": f"{platform.node()} {platform.platform()} {os.cpu_count()} cores",
        "version_python": platform.python_version(),
    }
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[f"version_{package}"] = importlib.metadata.version(package)
    return {**facts, **_commit(), **_parameter_counts(getattr(engine, "network", None))}


def _training(engine: Any) -> dict[str, Any]:
    """Return length and learning rate as the engine has them, whichever id of the configuration they came from."""
    optimizer = getattr(engine, "optimizer", None)
    if optimizer is None:
        return {}
    group = optimizer.param_groups[0]
    told = {name: group[name] for name in ("weight_decay", "momentum", "betas") if name in group}
    return {
        "max_epochs": engine.state.max_epochs,
        "epoch_length": engine.state.epoch_length,
        "optimizer": type(optimizer).__name__,
        "lr": group.get("initial_lr", group["lr"]),  # a schedule has changed the latter already
        **told,
    }


def _parameter_counts(network: torch.nn.Module | None) -> dict[str, int]:
    if network is None:
        return {}
    network = getattr(network, "module", network)  # DistributedDataParallel
    parts = {"total": network, **dict(network.named_children())}
    return {f"parameters_{name}": sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def _commit() -> dict[str, Any]:
    try:
        commit, changes = (
            subprocess.run(["git", *command], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return {}
    return {"git_commit": commit, "git_dirty": bool(changes)}


def calling_config() -> dict[str, Any] | None:
    """The raw configuration of the ``ConfigParser`` up the stack; MONAI gives a config no way to refer to itself."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser.get()
        frame = frame.f_back
    return None


def to_yaml(config: Mapping[str, Any] | None) -> str | None:
    """``config`` as YAML text; what YAML does not know stands there as a string."""
    return None if config is None else yaml.safe_dump(json.loads(json.dumps(config, default=str)), sort_keys=False)


def file_hash(path: str | Path) -> str:
    """First 16 digits of the SHA-256 of a small file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
