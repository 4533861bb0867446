r"""Make a bundle of what was trained: one folder with its configs and weights, to share or to serve.

    monai-flowssn package ssn my_ssn_segmentation --model my_run/models/model.pt \
        --overlay my_data.yaml --set spatial_size="[96, 96]"

The overlays and settings are those of the training. They become part of the configs, so that the folder is complete in itself.
Its name should have "segmentation" in it, because MONAI Label goes by that. The weights are tried on the network, and
the options compared with those of the training, before anything is written. Card and metadata get the sizes of the training and
the table of its evaluation from where both left them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser

from monai_flowssn.cli.card import Training, card, metadata
from monai_flowssn.cli.exports import export
from monai_flowssn.cli.shipped import bundle, config_file, folder, overlay
from monai_flowssn.handlers.trained_options import OPTIONS_FILE
from monai_flowssn.options import unread_ids
from monai_flowssn.weights import load_weights
from monai_flowssn.workflows import Data, check_bundle_options

WORKFLOWS = ("train", "evaluate", "inference")
NO_LICENSE = "The licence of the data that these weights were learnt from was not stated when they were packed.\n"
TAKES = {
    "anywhere": "whole images by windows of {}",
    "centre": "the middle {} of an image, as in its training (for all of it train, and --set, data::crops anywhere)",
    "whole": "whole images, resized to {}",
}


def merged(source: Path, workflow: str, overlays: list[Path], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a workflow as MONAI merges these files and settings."""
    parser = ConfigParser()
    for path in [config_file(source, workflow), *overlays]:
        parser.update(ConfigParser.load_config_file(path))
    parser.update(settings)
    merged = {key: value for key, value in parser.get().items() if key != "_meta_"}
    return {key: value for key, value in merged.items() if key not in unread_ids(merged)}  # of other workflows


def parsed(config: dict[str, Any], name: str) -> Any:
    """Return what an id of a config stands for; the config stays as it is, to be written."""
    return ConfigParser(deepcopy(config)).get_parsed_content(name)


def loaded_network(config: dict[str, Any], model: Path) -> torch.nn.Module:
    """Return the network of a config with its weights; refuse weights that do not fit it."""
    network: torch.nn.Module = parsed(config, "network_def")
    load_weights(network, model)
    return network.eval()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Bundle, weights, the options of their training, and what to say of them."""
    parser.add_argument("bundle", help="the bundle that was trained: a name of monai-flowssn list, or a folder")
    parser.add_argument("into", type=Path, help="folder of the new bundle")
    parser.add_argument("--model", type=Path, required=True, help="its weights, models/model.pt")
    parser.add_argument(
        "--overlay", nargs="*", default=[], help="the config files, or their names, that followed the bundle's"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="ID=VALUE", help="the options of the command line")
    parser.add_argument("--table", type=Path, help="per_case.csv of its evaluation, by default that of the run")
    parser.add_argument("--data_license", type=Path, help="text file: of the data that it was learnt from")
    parser.add_argument(
        "--export", action="store_true", help="try TorchScript and ONNX, and keep in exports/ what works"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the bundle."""
    source, into = bundle(arguments.bundle), arguments.into
    overlays = [overlay(name, source.name.removesuffix("_segmentation")) for name in arguments.overlay]
    settings = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    settings["ckpt_dir"] = "$@bundle_root + '/models'"  # the model of a fold is the one model of the new bundle
    configs = {name: merged(source, name, overlays, settings) for name in WORKFLOWS}
    network = loaded_network(configs["inference"], arguments.model)
    check_bundle_options(configs["inference"], arguments.model)
    data: Data = parsed(configs["inference"], "data")
    about = Training(arguments.model.resolve(), arguments.table)
    size = parsed(configs["inference"], "spatial_size")
    for name in ("configs", "models", "docs"):
        (into / name).mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():  # JSON, because monai.bundle.load looks for nothing else
        (into / "configs" / f"{name}.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    for name in ("logging.conf", *(f"multi_gpu_{workflow}.yaml" for workflow in WORKFLOWS)):
        shutil.copy(source / "configs" / name, into / "configs" / name)
    shutil.copy(arguments.model, into / "models" / "model.pt")
    if (trained := arguments.model.with_name(OPTIONS_FILE)).is_file():
        shutil.copy(trained, into / "models" / OPTIONS_FILE)
    told = dict.fromkeys(("TorchScript", "ONNX"), "not tried")
    if arguments.export:
        told = export(network, torch.zeros(1, data.channels, *size), into / "exports")
    described = json.loads((source / "configs" / "metadata.json").read_text(encoding="utf-8"))
    made = {**metadata(described, size, data, about), "exports": told}
    (into / "configs" / "metadata.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    use = TAKES[data.crops].format("x".join(map(str, size)))
    named = {"folder": into.name, "use": use, "torchscript": told["TorchScript"], "onnx": told["ONNX"]}
    text = card(made, arguments.model, size, data, about, **named)
    (into / "docs" / "README.md").write_text(text, encoding="utf-8")
    shutil.copy(next(folder("bundles").glob("*/LICENSE")), into / "LICENSE")  # the code's
    (into / "docs" / "data_license.txt").write_text(data_license(arguments.data_license, data), encoding="utf-8")
    print(f"{into}: weights fit; takes {use}; exports: {told}")


def data_license(given: Path | None, data: Data) -> str:
    """Return the licence of the data: as given, or that of a data set of ours, or that it is unknown."""
    known = folder("configs") / "data" / f"{data.name.partition('_')[0]}_license.txt"
    path = given or known
    return path.read_text(encoding="utf-8") if given or known.is_file() else NO_LICENSE
