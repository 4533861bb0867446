"""Every method with tiny networks: those of the bundles and their variants, at the scale `configs/methods/<method>/tiny.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs" / "methods"

TRAINING = {"batch_size": 2, "max_epochs": 1, "lr": 0.01, "eval_draws": 4, "draws": 3}

PLAIN_BASE = {"network_def::base::channels": [4, 8], "network_def::base::convs": 1}
#: Variants of a method, with what is tiny in them alone: the file `configs/methods/<variant>.yaml`.
VARIANTS: dict[str, dict[str, Any]] = {
    "cflow/planar": {},
    "flowssn_autoregressive/dual": {},
    "flowssn_autoregressive/informed": PLAIN_BASE,
    "flowssn_continuous/fixed_prior": {"network_def::flow::channels": [4, 8], "network_def::flow::patch": 1},
    "nf_prob_unet/radial": {},
    "p2sam/transported": {},
    "ssn/plus_plus": {"network_def::net::channels": [4, 8], "network_def::net::patch": 1},
}
BUNDLES = sorted(path.parent.name for path in CONFIGS.glob("*/model.yaml"))
#: Choices that no file makes.
CHOICES: dict[str, dict[str, Any]] = {
    "cimd, ancestral": {"network_def::ancestral": True},
    "flow_matching, unguided": {"network_def::guidance": 0.0},
    "flowssn_autoregressive, gated": {"network_def::kind": "gated", "network_def::entropy_weight": 0.1},
    "flowssn_autoregressive, volume preserving": {
        "network_def::kind": "volume_preserving",
        "network_def::flow::out_channels": "@data::num_classes",
    },
    "flowssn_continuous, path": {"network_def::velocity": "path"},
    "flowssn_continuous, learnt deviation": {"network_def::base::out_channels": "$2 * @data::num_classes"},
    "flowssn_informed, features only": {
        "network_def::show_mean": False,
        "network_def::flow::in_channels": "$@data::num_classes + 14",
    },
    "joint_prob_unet, independent levels": {"network_def::independent_levels": True},
}
METHODS = [*BUNDLES, *VARIANTS, *CHOICES]

SETTINGS = {"2-D, K=2": (2, 1, 2), "2-D, K=4": (2, 3, 4), "3-D, K=4": (3, 2, 4)}
SIZES = {2: (8, 8), 3: (8, 4, 4)}
B, N = 2, 3


def _name(method: str) -> tuple[str, str]:
    """Return the name of the bundle, and that of the variant or ""."""
    plain = method.split(",")[0].removesuffix("_segmentation")
    return plain.split("/")[0], plain if "/" in plain else ""


def tiny_scale(method: str) -> dict[str, Any]:
    """Return the options of a bundle, of a variant on it, such as ssn/plus_plus, or of another choice of the list."""
    bundle, variant = _name(method)
    numbers = ConfigParser.load_config_file(CONFIGS / bundle / "tiny.yaml")
    if variant:
        replaced = tuple(f"{name}::" for name in ConfigParser.load_config_file(CONFIGS / f"{variant}.yaml"))
        numbers = {name: value for name, value in numbers.items() if not name.startswith(replaced)}
        numbers |= VARIANTS[variant]
    return {**TRAINING, **numbers, **CHOICES.get(method, {})}


def _config(bundle: str) -> Path:
    return ROOT / "bundles" / f"{bundle}_segmentation" / "configs" / "inference.yaml"


def tiny_network(
    method: str, dims: int = 2, channels: int = 1, num_classes: int = 2, size: tuple[int, ...] = ()
) -> Any:
    """Build the network of a method for images (B, C, *S)."""
    bundle, variant = _name(method)
    config = ConfigParser()
    config.read_config([_config(bundle), *([CONFIGS / f"{variant}.yaml"] if variant else [])])
    options = {**tiny_scale(method), "data::channels": channels, "data::num_classes": num_classes}
    options["spatial_size"] = list(size or SIZES[dims])
    if "network_def::flow::strip" in options:
        options["network_def::flow::strip"] = [2] * dims
    config.update(options)
    return config.get_parsed_content("network_def")


class Case:
    """One method in one setting, with data. The parameters are moved off their start, where zero-initialised layers block
    every gradient before them and make all draws alike."""

    def __init__(self, name, setting):
        torch.manual_seed(0)
        self.name, (self.dims, self.channels, self.k) = name, setting
        self.size = SIZES[self.dims]
        self.segmenter = self.build()
        with torch.no_grad():
            for parameter in self.segmenter.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        self.image = torch.randn(B, self.channels, *self.size)

    def build(self):
        return tiny_network(self.name, self.dims, self.channels, self.k).eval()

    def masks(self, r):
        return torch.randint(0, self.k, (B, r, *self.size), dtype=torch.int16)
