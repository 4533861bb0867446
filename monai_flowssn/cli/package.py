r"""Make a bundle of what was trained: one folder with its configs and weights, to share or to serve.

    monai-flowssn package ssn my_ssn_segmentation --model my_run/models/model.pt \
        --overlay my_data.yaml --set spatial_size="[96, 96]"

The overlays and settings are those of the training. They become part of the configs, so that the folder is complete in itself.
Its name should have "segmentation" in it, because MONAI Label goes by that. The weights are tried on the network, and
the options compared with those of the training, before anything is written.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from monai_flowssn.cli.shipped import bundle, overlay
from monai_flowssn.handlers.trained_options import OPTIONS_FILE, check_trained_options
from monai_flowssn.options import unread_ids
from monai_flowssn.weights import load_weights
from monai_flowssn.workflows import model_options

WORKFLOWS = ("train", "evaluate", "inference")
MIDDLE = "the middle of an image, as in its training (for all of it train, and --set, data::crops anywhere)"


def merged(source: Path, workflow: str, overlays: list[Path], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a workflow as MONAI merges these files and settings."""
    parser = ConfigParser()
    for path in [source / "configs" / f"{workflow}.yaml", *overlays]:
        parser.update(ConfigParser.load_config_file(path))
    parser.update(settings)
    merged = {key: value for key, value in parser.get().items() if key != "_meta_"}
    return {key: value for key, value in merged.items() if key not in unread_ids(merged)}  # of other workflows


def check_weights(config: dict[str, Any], model: Path) -> None:
    """Refuse weights that do not fit the network of the config."""
    load_weights(ConfigParser(config).get_parsed_content("network_def"), model)


def check_options(config: dict[str, Any], model: Path) -> None:
    """Refuse a config that contradicts the options of the training, unless its ``force_options`` is true."""
    if not config.get("force_options"):
        data = ConfigParser(config).get_parsed_content("data")
        check_trained_options(model, model_options(data, config))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Bundle, weights, and the options of their training."""
    parser.add_argument("bundle", help="the bundle that was trained: a name of monai-flowssn list, or a folder")
    parser.add_argument("into", type=Path, help="folder of the new bundle")
    parser.add_argument("--model", type=Path, required=True, help="its weights, models/model.pt")
    parser.add_argument(
        "--overlay", nargs="*", default=[], help="the config files, or their names, that followed the bundle's"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="ID=VALUE", help="the options of the command line")


def run(arguments: argparse.Namespace) -> None:
    """Write the bundle."""
    source = bundle(arguments.bundle)
    overlays = [overlay(name, source.name.removesuffix("_segmentation")) for name in arguments.overlay]
    settings = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    settings["ckpt_dir"] = "$@bundle_root + '/models'"  # the model of a fold is the one model of the new bundle
    configs = {name: merged(source, name, overlays, settings) for name in WORKFLOWS}
    check_weights(configs["inference"], arguments.model)
    check_options(configs["inference"], arguments.model)
    folder = arguments.into / "configs"
    folder.mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():
        text = yaml.safe_dump(config, sort_keys=False, width=120, default_flow_style=False)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    for name in ("metadata.json", "logging.conf", "multi_gpu_train.yaml", "multi_gpu_evaluate.yaml"):
        shutil.copy(source / "configs" / name, folder / name)
    (arguments.into / "models").mkdir(exist_ok=True)
    shutil.copy(arguments.model, arguments.into / "models" / "model.pt")
    trained = arguments.model.with_name(OPTIONS_FILE)
    if trained.is_file():
        shutil.copy(trained, arguments.into / "models" / OPTIONS_FILE)
    inference = configs["inference"]
    size, anywhere = json.dumps(inference["spatial_size"]), inference["data"].get("crops") == "anywhere"
    print(f"{arguments.into}: weights fit; takes", f"whole images by windows of {size}" if anywhere else MIDDLE)
