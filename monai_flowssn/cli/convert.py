"""Turn a checkpoint of the Flow-SSN authors into the weights of a bundle and the options that these need.

    monai-flowssn convert c_flowssn_lidc.pt --bundle_root my_run

    B=bundles/flowssn_continuous_segmentation/configs
    python -m monai.bundle run evaluating --config_file "['$B/evaluate.yaml','my_run/models/options.yaml']" \
      --bundle_root my_run --dataset_dir data/lidc

writes my_run/models/model.pt and my_run/models/options.yaml, an overlay for every workflow of the bundle; name it last. The
checkpoints (links at https://github.com/biomedia-mira/flow-ssn; continuous and autoregressive, LIDC and REFUGE) hold the
arguments of their training and averaged weights. What the authors' networks have but never use is left out; any other weight
without a counterpart here is an error that names it. There the time reaches neither the upsampling blocks nor the last one in the
middle; here they are modulated by zero, which is the same. Files are read with weights_only=True.

The options keep the authors' way of drawing (velocity "path", 50 uniform Euler steps). They also turn images to rows by columns,
the order that the networks were trained in, where this library has columns by rows. Results come back in the geometry of the
input; panels show what the network saw.

How the conversion was checked: the authors' code (commit bb9c919) built the four published networks, with as many parameters as
the notebooks beside the published files print. Their weights were drawn at random, saved as a training there saves them, and
converted. Both sides then drew with the same noise, in float32. The largest differences were 3e-6 in the mean of the base, 2e-6
in the probabilities of a draw, and 2e-5 in autoregressive logits of up to 24. The published files themselves were not at hand.
tests/test_convert_checkpoint.py repeats the comparison in small, against formulas under the authors' names.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser

from monai_flowssn.cli.shipped import folder

State = dict[str, torch.Tensor]
Options = dict[str, Any]

# names of the authors' layers -> ours, within one block
RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "film",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "shortcut",
}
CAUSAL = {
    "norm1": "norm1",
    "norm3": "norm2",
    "self_attn.in_proj_weight": "qkv.weight",
    "self_attn.in_proj_bias": "qkv.bias",
    "self_attn.out_proj": "out",
    "linear1": "mlp.0",
    "linear2": "mlp.3",
}
# and outside of the blocks
UNET = {
    "stem": "stem",
    "time_embed.0": "time.0",
    "time_embed.2": "time.2",
    "middle_block.1.norm": "middle.1.norm",
    "middle_block.1.qkv": "middle.1.qkv",
    "middle_block.1.proj_out": "middle.1.out",
    "head.0": "norm",
    "head.2": "head",
}
TRANSFORMER = {
    "embed_x.conv": "embed",
    "bos_token": "start",
    "pos_embed": "positions",
    "transformer.norm": "norm",
    "head.1": "head.0",
    "head.3": "head.2",
}
# what they hold and never use: embeddings of an image or a time that is not given, and attention to them
UNUSED_WITH_TIME = r"label_embed\."
UNUSED_WITHOUT_TIME = r"label_embed\.|time_embed\.|.*\.emb_layers\."
# blocks that the time never reaches there, because a sequence hands it to its first block alone
TIMELESS = r"(middle_block\.2|decoder_blocks\.\d+\.1)\.emb_layers\."
UNUSED_CAUSAL = r"embed_[yt]\.|pos_embed_y$|tgt_mask$|.*\.multihead_attn\.|.*\.norm2\."


def unet_names(levels: int, blocks: int) -> dict[str, str]:
    """Names of the authors' U-Net -> names of StreamlinedUNet."""
    encoder, stage = [], 0
    for level in range(levels):
        encoder += [f"encoder_blocks.{stage + i}.0" for i in range(blocks)]
        stage += blocks
        if level < levels - 1:
            encoder.append(f"encoder_blocks.{stage}")
            stage += 1
    decoder, stages = [], levels * (blocks + 1)
    for stage in range(stages):
        decoder.append(f"decoder_blocks.{stage}.0")
        if (stage + 1) % (blocks + 1) == 0 and stage + 1 < stages:
            decoder.append(f"decoder_blocks.{stage}.1")  # to the next level
    pairs = [(f"middle_block.{i}", f"middle.{i}") for i in (0, 2)]
    pairs += [(name, f"encoder.{i}") for i, name in enumerate(encoder)]
    pairs += [(name, f"decoder.{i}") for i, name in enumerate(decoder)]
    return UNET | {f"{theirs}.{a}": f"{ours}.{b}" for theirs, ours in pairs for a, b in RESIDUAL.items()}


def transformer_names(blocks: int) -> dict[str, str]:
    """Names of the authors' transformer -> names of StripTransformer."""
    causal = {f"transformer.layers.{i}.{a}": f"blocks.{i}.{b}" for i in range(blocks) for a, b in CAUSAL.items()}
    return TRANSFORMER | causal


def take(state: State, theirs: str, ours: str, *, names: Mapping[str, str], unused: str) -> State:
    """Take what is used or unused of the network ``theirs`` out of the state; return what is used, under our names."""
    taken: State = {}
    for key in [key for key in state if key.startswith(theirs)]:
        name = key.removeprefix(theirs)
        module, _, parameter = name.rpartition(".")
        if re.match(unused, name):
            del state[key]
        elif name in names:
            taken[ours + names[name]] = state.pop(key)
        elif module in names:
            taken[f"{ours}{names[module]}.{parameter}"] = state.pop(key)
    return taken


def convert_unet(args: Options, state: State, names: tuple[str, str], *, time: bool) -> tuple[State, Options]:
    """Convert the U-Net whose arguments are ``args``: its state, from and to ``names``, and its options."""
    attention = args["attention_resolutions"]
    channels = [int(factor * args["model_channels"]) for factor in args["channel_mult"]]
    middle_alone = not {-1, *(2**level for level in range(len(channels)))}.intersection(attention)
    refuse_unless(
        middle_alone, f"attention_resolutions is {attention}, but StreamlinedUNet attends in the middle alone"
    )
    blocks, head_width = args["num_res_blocks"], args["num_head_channels"]
    unused = UNUSED_WITH_TIME if time else UNUSED_WITHOUT_TIME
    for key in state:
        if key.startswith(names[0]) and re.match(TIMELESS, key.removeprefix(names[0])):
            state[key] = torch.zeros_like(state[key])  # every block of ours is modulated: scale and shift 0 are none
    taken = take(state, *names, names=unet_names(len(channels), blocks), unused=unused)
    for name in ("qkv", "out"):  # 1x1 convolutions there, linear layers here
        key = f"{names[1]}middle.1.{name}.weight"
        taken[key] = taken[key].squeeze(-1)
    if head_width < 0:
        head_width = channels[-1] // args["num_heads"]
    options = {"channels": channels, "blocks": blocks, "head_width": head_width, "dropout": args["dropout"], "patch": 1}
    return taken, options


def convert_base(args: Options, state: State, theirs: str) -> tuple[State, Options]:
    """Convert the base. Where its deviation is fixed, the outputs for a learnt one are unused."""
    own = {key.removeprefix("base_"): value for key, value in args.items() if key.startswith("base_")}
    taken, options = convert_unet(own, state, (theirs, "base."), time=False)
    if not args["base_std"]:
        return taken, under("base", {**options, "out_channels": 2 * args["num_classes"]})
    for key in ("base.head.weight", "base.head.bias"):
        taken[key] = taken[key][: args["num_classes"]].clone()
    return taken, {**under("base", options), "network_def::base_std": float(args["base_std"])}


def convert_continuous_flow(args: Options, state: State) -> tuple[State, Options]:
    """Convert the flow of a continuous Flow-SSN, with the authors' way of drawing."""
    taken, options = convert_unet(args, state, ("flow_net.", "flow."), time=True)
    drawing = {"velocity": "path", "solver": "euler", "grid_power": 1.0, "steps": 50}
    return taken, {**under("flow", options), **{f"network_def::{key}": value for key, value in drawing.items()}}


def convert_autoregressive_flow(args: Options, state: State) -> tuple[State, Options]:
    """Convert the flow of an autoregressive Flow-SSN."""
    kinds = {"default": "affine", "gated": "gated"}
    refuse_unless(
        args["num_flows"] == 1, f"num_flows is {args['num_flows']}, but stacked flows reverse their order here"
    )
    refuse_unless(args["flow_type"] in kinds, f"flow_type is {args['flow_type']!r}, not one of {', '.join(kinds)}")
    names, theirs = transformer_names(args["num_blocks"]), "flows.iaf.0.autoregressive_nn."
    taken = take(state, theirs, "flow.nets.0.", names=names, unused=UNUSED_CAUSAL)
    same = {"embed_dim": "width", "num_blocks": "blocks", "num_heads": "heads", "dropout": "dropout"}
    options = {"strip": list(args["strip_size"]), **{ours: args[key] for key, ours in same.items()}}
    return taken, {**under("flow", options), "network_def::kind": kinds[args["flow_type"]]}


KINDS = {  # the authors' model -> its networks, the name of its base, how to convert its flow, our bundle
    "c-flowssn": (("unet", "unet"), "base_net.", convert_continuous_flow, "flowssn_continuous_segmentation"),
    "ar-flowssn": (
        ("transformer", "unet"),
        "base_nets.iaf.",
        convert_autoregressive_flow,
        "flowssn_autoregressive_segmentation",
    ),
}


def convert(checkpoint: Mapping[str, Any]) -> tuple[str, State, Options]:
    """Return the name of the bundle, its weights and its options."""
    args = checkpoint["args"]
    args = dict(args if isinstance(args, Mapping) else vars(args))
    state = dict(checkpoint["model_state_dict"])
    refuse_unless(args["model"] in KINDS, f"model is {args['model']!r}, not one of {', '.join(KINDS)}")
    nets, base, convert_flow, bundle = KINDS[args["model"]]
    found = args["net"], args["base_net"]
    refuse_unless(found == nets, f"its flow and base are {found}, not {nets}")
    refuse_unless(args["cond_base"] and not args["cond_flow"], "the image does not enter its base, and its base alone")
    weights, base_options = convert_base(args, state, base)
    flow, flow_options = convert_flow(args, state)
    refuse_unless(not state, f"these weights have no counterpart: {', '.join(sorted(state))}")
    channels, *size = args["base_input_shape"]
    turn = {"_target_": "Transposed", "keys": ["image", "label"], "indices": [0, 2, 1], "allow_missing_keys": True}
    shared = {"spatial_size": size, "data::channels": channels, "data::num_classes": args["num_classes"]}
    shared["data::geometry"] = [turn]
    return bundle, weights | flow, {**shared, **base_options, **flow_options}


def under(network: str, options: Options) -> Options:
    return {f"network_def::{network}::{key}": value for key, value in options.items()}


def refuse_unless(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(f"This checkpoint cannot be converted: {reason}.")


def write(checkpoint: Mapping[str, Any], into: Path) -> str:
    """Write model.pt and options.yaml, if the one fits the network of the other; return what to tell the user."""
    try:
        bundle, weights, options = convert(checkpoint)
    except KeyError as error:
        raise ValueError(f"The checkpoint has no {error}; is it one of the Flow-SSN authors?") from error
    text = yaml.safe_dump(options, sort_keys=False, default_flow_style=None, width=120)
    into.mkdir(parents=True, exist_ok=True)
    (into / "options.yaml").write_text(text, encoding="utf-8")
    parser = ConfigParser()
    parser.read_config([str(folder("bundles") / bundle / "configs" / "inference.yaml"), str(into / "options.yaml")])
    parser.get_parsed_content("network_def").load_state_dict(weights)
    torch.save(weights, into / "model.pt")
    return f"{into}/model.pt and options.yaml for bundles/{bundle}:\n{text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Checkpoint and folder."""
    parser.add_argument("checkpoint", type=Path, help="file of the authors")
    parser.add_argument("--bundle_root", type=Path, required=True, help="folder that receives models/")


def run(arguments: argparse.Namespace) -> None:
    """Convert."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # all that it may hold besides tensors and numbers
            checkpoint = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    except (UnpicklingError, OSError) as error:  # torch's own advice, to load it without care, is not passed on
        raise ValueError(
            f"{arguments.checkpoint} is no checkpoint that loads safely; give a file of the authors."
        ) from error
    print(write(checkpoint, arguments.bundle_root / "models"))
