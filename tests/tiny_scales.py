"""The scale of the tests: options that make any bundle run in seconds. A new method joins by one entry in NETWORKS."""

from __future__ import annotations

from typing import Any

UNET = {"channels": [4, 8], "blocks": 1, "dropout": 0.0, "patch": 1}
FLOW = {"channels": [4, 4], "head_width": 4, "dropout": 0.0, "patch": 1}


def under(name: str, numbers: dict[str, Any]) -> dict[str, Any]:
    return {f"network_def::{name}::{key}": value for key, value in numbers.items()}


PROB_UNET = under("features", {"channels": [4, 8], "convs": 1})
CONTINUOUS = {**under("base", UNET), **under("flow", FLOW)}
STRIPS = {"strip": [4, 4], "width": 8, "dropout": 0.0}
AUTOREGRESSIVE = {**under("base", UNET), **under("flow", STRIPS), "network_def::train_draws": 2}
P2SAM = {
    **under("encoder", UNET),
    **under("prior", {"channels": [4, 8], "convs": 1}),
    **under("prompt", {"hidden_channels": [8]}),
    "network_def::latent_dim": 3,
}
NETWORKS = {  # bundle, or bundle and variant -> what it changes of its network
    "ccdm": {**under("net", UNET), "network_def::steps": 2},
    "cflow": PROB_UNET,
    "cimd": {**under("net", UNET), **under("prior", {"channels": [4, 8], "convs": 1}), "network_def::steps": 2},
    "flow_matching": {**under("net", UNET), "network_def::steps": 2},
    "flowssn_autoregressive": AUTOREGRESSIVE,
    "flowssn_continuous": CONTINUOUS,
    "flowssn_informed": {
        **under("base", {"channels": [4, 8], "convs": 1}),
        **under("flow", {"channels": [4, 4], "head_width": 4, "patch": 1}),
    },
    "joint_prob_unet": under("prior", {"channels": [4, 8], "growth": 4}),
    "mose": {
        **under("features", UNET),
        **under("gate", {"channels": [4, 8], "convs": 1}),
        "network_def::capacity_steps": 1,
    },
    "nf_prob_unet": PROB_UNET,
    "p2sam": P2SAM,
    "phiseg": under("prior", {"channels": [4, 8], "latent_levels": 2}),
    "prob_unet": PROB_UNET,
    "ssn": {**under("net", {"channels": [4, 8], "convs": 1}), "network_def::train_draws": 2},
    "unet": under("net", UNET),
    "cflow/planar": PROB_UNET,
    "flowssn_autoregressive/dual": AUTOREGRESSIVE,
    "flowssn_autoregressive/informed": {
        **under("base", {"channels": [4, 8], "convs": 1}),
        **under("flow", STRIPS),
        "network_def::train_draws": 2,
    },
    "flowssn_continuous/fixed_prior": under("flow", UNET),
    "nf_prob_unet/radial": PROB_UNET,
    "p2sam/transported": P2SAM,
    "ssn/plus_plus": {**under("net", UNET), "network_def::train_draws": 2},
}
TRAINING = {
    "spatial_size": [16, 16],
    "batch_size": 2,
    "max_epochs": 1,
    "warmup_steps": 1,
    "lr": 0.01,
    "eval_draws": 4,
    "draws": 3,
}


def tiny_scale(method: str) -> dict[str, Any]:
    """Return the options of the bundle of a method, or of a variant on it, such as ssn/plus_plus."""
    return {**TRAINING, **NETWORKS[method.removesuffix("_segmentation")]}
