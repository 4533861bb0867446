"""A bundle's workflow in short. The command of `monai.bundle` that it stands for is printed first.

    monai-flowssn train ssn my_data.yaml --bundle_root my_run --time_limit 3600
    monai-flowssn evaluate ssn my_data.yaml --bundle_root my_run
    monai-flowssn infer ssn my_data.yaml --bundle_root my_run

After the bundle come config files, or names of `monai-flowssn list`; later ones win. All options are ids of the configs. Where
neither they nor the folder of work have weights, evaluate and infer take those that are in the bundle.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_flowssn.cli.shipped import bundle, config_file, overlay

PASSES_OPTIONS = True  # to monai.bundle
WORKFLOWS = {
    "train": ("training", "train"),
    "evaluate": ("evaluating", "evaluate"),
    "infer": ("inference", "inference"),
}
WEIGHTS = ("--bundle_root", "--ckpt_dir", "--model_path")  # options that say where they are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Bundle and config files."""
    parser.add_argument("bundle", help="a name of monai-flowssn list, or a folder")
    parser.add_argument("configs", nargs="*", metavar="config", help="files or names: data set, scale, variant")
    parser.add_argument("--show", action="store_true", help="print the command, and do not run it")


def command(name: str, bundle_name: str, configs: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return the command of ``monai.bundle`` that a short one stands for.

    Args:
        name: train, evaluate or infer.
        bundle_name: a bundle's name or folder.
        configs: files or names.
        options: ids and values, such as ``--lr 0.001``.
    """
    path = bundle(bundle_name)
    run_id, file = WORKFLOWS[name]
    method = path.name.removesuffix("_segmentation")
    files = [config_file(path, file), *(overlay(each, method) for each in configs)]
    listed = "[" + ",".join(repr(str(each)) for each in files) + "]"
    weights = path / "models" / "model.pt"
    elsewhere = Path("models", "model.pt").is_file() or any(each.startswith(WEIGHTS) for each in options)
    if name != "train" and weights.is_file() and not elsewhere:
        options = [*options, "--model_path", str(weights)]
    return [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", listed, *options]


def run(arguments: argparse.Namespace) -> None:
    """Print the command, and become it."""
    made = command(arguments.command, arguments.bundle, arguments.configs, arguments.options)
    shown = " ".join(f'"{each}"' if each.startswith("['") else shlex.quote(each) for each in made[1:])
    print(f"python {shown}", file=sys.stderr, flush=True)
    if not arguments.show:
        os.execv(made[0], made)
