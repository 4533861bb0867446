"""The networks of the Flow-SSN authors, as names and shapes of weights and as formulas under those names."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]


def unet_args(
    channels: int, width: int, mult: list[int], *, size: int, outputs: int, blocks: int = 1, head: int = 16
) -> dict:
    return {
        "input_shape": (channels, size, size),
        "model_channels": width,
        "channel_mult": mult,
        "num_res_blocks": blocks,
        "out_channels": outputs,
        "attention_resolutions": [0],
        "num_heads": 1,
        "num_head_channels": head,
        "dropout": 0.1,
    }


def transformer_args(
    strip: tuple[int, int], width: int, blocks: int, *, size: int, channels: int, heads: int = 1
) -> dict:
    return {
        "input_shape": (2, size, size),
        "context_shape": (channels, size, size),
        "strip_size": strip,
        "out_channels": 4,
        "embed_dim": width,
        "num_blocks": blocks,
        "num_heads": heads,
        "dropout": 0.1,
        "num_flows": 1,
        "flow_type": "default",
    }


def arguments(base: dict, flow: dict, **others: object) -> dict:
    """What a training of theirs stores."""
    net = "unet" if "model_channels" in flow else "transformer"
    model = "c-flowssn" if net == "unet" else "ar-flowssn"
    shared = {"num_classes": 2, "cond_base": True, "cond_flow": False, "base_std": 1.0, "dataset": "lidc", "lr": 1e-4}
    prefixed = {f"base_{key}": value for key, value in base.items()}
    return {"model": model, "net": net, "base_net": "unet", **shared, **flow, **prefixed, **others}


# --- names and shapes of their networks


def layer(name: str, inputs: int, outputs: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def residual(name: str, inputs: int, outputs: int, time: int) -> Shapes:
    shapes = norm(f"{name}.in_layers.0", inputs) | layer(f"{name}.in_layers.2", inputs, outputs, 3, 3)
    shapes |= layer(f"{name}.emb_layers.1", time, 2 * outputs)
    shapes |= norm(f"{name}.out_layers.0", outputs) | layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    return shapes | (layer(f"{name}.skip_connection", inputs, outputs, 3, 3) if inputs != outputs else {})


def unet_shapes(args: dict) -> Shapes:
    width, blocks, widths = (
        args["model_channels"],
        args["num_res_blocks"],
        [m * args["model_channels"] for m in args["channel_mult"]],
    )
    now, time, stage = widths[0], 4 * width, 0
    shapes = layer("time_embed.0", width, time) | layer("time_embed.2", time, time)
    shapes |= layer("label_embed.0", 1, now, 1, 1) | norm("label_embed.1", now) | layer("label_embed.3", now, now, 1, 1)
    shapes |= layer("stem", args["input_shape"][0], now, 3, 3)
    skips = [now]
    for level, outputs in enumerate(widths):
        for _ in range(blocks):
            shapes |= residual(f"encoder_blocks.{stage}.0", now, outputs, time)
            now, stage = outputs, stage + 1
            skips.append(now)
        if level < len(widths) - 1:
            shapes |= residual(f"encoder_blocks.{stage}", now, now, time)
            stage += 1
            skips.append(now)
    shapes |= residual("middle_block.0", now, now, time) | residual("middle_block.2", now, now, time)
    shapes |= norm("middle_block.1.norm", now)
    shapes |= layer("middle_block.1.qkv", now, 3 * now, 1) | layer("middle_block.1.proj_out", now, now, 1)
    stage = 0
    for level, outputs in reversed(list(enumerate(widths))):
        for block in range(blocks + 1):
            shapes |= residual(f"decoder_blocks.{stage}.0", now + skips.pop(), outputs, time)
            now = outputs
            if level and block == blocks:
                shapes |= residual(f"decoder_blocks.{stage}.1", now, now, time)
            stage += 1
    return shapes | norm("head.0", now) | layer("head.2", now, args["out_channels"], 3, 3)


def transformer_shapes(args: dict) -> Shapes:
    w, strip, out = args["embed_dim"], args["strip_size"], args["out_channels"]
    strips = math.prod(args["input_shape"][1:]) // math.prod(strip)
    shapes = layer("embed_x.conv", args["input_shape"][0], w, *strip)
    shapes |= (
        layer("embed_y.0.conv", args["context_shape"][0], w, *strip) | norm("embed_y.1", w) | layer("embed_y.3", w, w)
    )
    shapes |= layer("embed_t.0", w, w) | layer("embed_t.2", w, w)
    for i in range(args["num_blocks"]):
        name = f"transformer.layers.{i}"
        for attention in ("self_attn", "multihead_attn"):
            shapes |= {f"{name}.{attention}.in_proj_weight": (3 * w, w), f"{name}.{attention}.in_proj_bias": (3 * w,)}
            shapes |= layer(f"{name}.{attention}.out_proj", w, w)
        shapes |= layer(f"{name}.linear1", w, 4 * w) | layer(f"{name}.linear2", 4 * w, w)
        shapes |= norm(f"{name}.norm1", w) | norm(f"{name}.norm2", w) | norm(f"{name}.norm3", w)
    shapes |= norm("transformer.norm", w) | {"tgt_mask": (strips, strips)}
    shapes |= {"bos_token": (1, 1, w), "pos_embed": (1, strips, w), "pos_embed_y": (1, strips, w)}
    shapes |= {"head.1.weight": (w, out, *strip), "head.1.bias": (out,)}
    return shapes | layer("head.3", out, out, 1, 1)


def split(args: dict) -> tuple[dict, dict]:
    """The arguments of the base, and of the flow."""
    return {key.removeprefix("base_"): value for key, value in args.items() if key.startswith("base_")}, args


def checkpoint_shapes(args: dict) -> tuple[Shapes, Shapes]:
    base, flow = split(args)
    continuous = args["model"] == "c-flowssn"
    names = ("base_net", "flow_net") if continuous else ("base_nets.iaf", "flows.iaf.0.autoregressive_nn")
    shapes = unet_shapes(base), (unet_shapes if continuous else transformer_shapes)(flow)
    first, second = ({f"{name}.{key}": shape for key, shape in part.items()} for name, part in zip(names, shapes))
    return first, second


class Reference:
    """The networks of a checkpoint as functions of its weights."""

    def __init__(self, state: dict[str, Tensor], prefix: str, args: dict) -> None:
        self.state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        self.args = args

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def conv(self, name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.of(name), padding="same")

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, *self.of(name))

    def group_norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, max(1, x.shape[1] // 16), *self.of(name))

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *self.of(name))

    def residual(
        self, name: str, x: Tensor, time: Tensor | None, resample: Callable[[Tensor], Tensor] = lambda x: x
    ) -> Tensor:
        h = self.conv(f"{name}.in_layers.2", resample(F.silu(self.group_norm(f"{name}.in_layers.0", x))))
        h = self.group_norm(f"{name}.out_layers.0", h)
        if time is not None:
            scale, shift = self.linear(f"{name}.emb_layers.1", F.silu(time))[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        h = self.conv(f"{name}.out_layers.3", F.silu(h))
        x = resample(x)
        return h + (self.conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in self.state else x)

    def attend(self, x: Tensor) -> Tensor:
        h = self.group_norm("middle_block.1.norm", x).flatten(2)  # (B, C, P)
        weight, bias = self.of("middle_block.1.qkv")
        qkv = torch.einsum("oc,bcp->bop", weight[..., 0], h) + bias[:, None]
        q, k, v = (part.unflatten(1, (-1, self.args["num_head_channels"])) for part in qkv.chunk(3, dim=1))
        scores = torch.einsum("bhcp,bhcq->bhpq", q, k) / math.sqrt(self.args["num_head_channels"])
        h = torch.einsum("bhpq,bhcq->bhcp", scores.softmax(dim=3), v).flatten(1, 2)
        weight, bias = self.of("middle_block.1.proj_out")
        return x + (torch.einsum("oc,bcp->bop", weight[..., 0], h) + bias[:, None]).view_as(x)

    def unet(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        args, time, stage = self.args, None, 0
        levels, blocks = len(args["channel_mult"]), args["num_res_blocks"]
        if t is not None:
            half = args["model_channels"] // 2
            angles = 1000 * t[:, None] * 10_000.0 ** (-torch.arange(half) / half)
            embedded = torch.cat([angles.cos(), angles.sin()], dim=1)
            time = self.linear("time_embed.2", F.silu(self.linear("time_embed.0", embedded)))
        x = self.conv("stem", x)
        skips = [x]
        for level in range(levels):
            for _ in range(blocks):
                skips.append(x := self.residual(f"encoder_blocks.{stage}.0", x, time))
                stage += 1
            if level < levels - 1:
                skips.append(x := self.residual(f"encoder_blocks.{stage}", x, time, lambda x: F.avg_pool2d(x, 2)))
                stage += 1
        x = self.attend(self.residual("middle_block.0", x, time))
        x = self.residual("middle_block.2", x, None)  # like the upsampling below, it never receives the time
        for stage in range(levels * (blocks + 1)):
            x = self.residual(f"decoder_blocks.{stage}.0", torch.cat([x, skips.pop()], dim=1), time)
            if f"decoder_blocks.{stage}.1.in_layers.0.weight" in self.state:
                x = self.residual(f"decoder_blocks.{stage}.1", x, None, lambda x: F.interpolate(x, scale_factor=2))
        return self.conv("head.2", F.silu(self.group_norm("head.0", x)))

    def transformer(self, x: Tensor) -> Tensor:
        strip, (_, height, width) = self.args["strip_size"], self.args["input_shape"]
        tokens = F.conv2d(x, *self.of("embed_x.conv"), stride=strip).flatten(2).mT + self.state["pos_embed"]
        x = torch.cat([self.state["bos_token"].expand(len(x), -1, -1), tokens[:, :-1]], dim=1)
        future = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
        for i in range(self.args["num_blocks"]):
            name = f"transformer.layers.{i}"
            h = self.layer_norm(f"{name}.norm1", x)
            qkv = F.linear(
                h, self.state[f"{name}.self_attn.in_proj_weight"], self.state[f"{name}.self_attn.in_proj_bias"]
            )
            q, k, v = (part.unflatten(2, (self.args["num_heads"], -1)) for part in qkv.chunk(3, dim=2))
            scores = torch.einsum("bphc,bqhc->bhpq", q, k) / math.sqrt(q.shape[-1])
            h = torch.einsum("bhpq,bqhc->bphc", scores.masked_fill(future, -math.inf).softmax(dim=3), v).flatten(2)
            x = x + self.linear(f"{name}.self_attn.out_proj", h)
            h = F.gelu(self.linear(f"{name}.linear1", self.layer_norm(f"{name}.norm3", x)))
            x = x + self.linear(f"{name}.linear2", h)
        x = self.layer_norm("transformer.norm", x).mT.unflatten(2, (height // strip[0], width // strip[1]))
        return self.conv("head.3", F.gelu(F.conv_transpose2d(x, *self.of("head.1"), stride=strip)))


def random_checkpoint(args: dict) -> dict:
    """Weights of the size at which every layer matters; the norms lie around the identity."""
    torch.manual_seed(0)
    state = {}
    for part in checkpoint_shapes(args):
        for key, shape in part.items():
            fan_in = math.prod(shape[1:])
            state[key] = torch.randn(shape) / math.sqrt(fan_in) if fan_in > 1 else 0.3 * torch.randn(shape)
            if len(shape) == 1 and key.endswith("weight"):
                state[key] += 1
    return {"args": args, "model_state_dict": state, "optimizer_state_dict": {"param_groups": [{"lr": 1e-4}]}}


def start(args: dict, state: dict[str, Tensor], image: Tensor, noise: Tensor) -> Tensor:
    name = "base_net." if args["model"] == "c-flowssn" else "base_nets.iaf."
    mean, log_std = Reference(state, name, split(args)[0]).unet(image).chunk(2, dim=1)
    return mean + noise * (args["base_std"] or log_std.exp().clamp(min=1e-5))


def draw(args: dict, state: dict[str, Tensor], image: Tensor, noise: Tensor) -> Tensor:
    """One of their draws per row: the end of the trajectory, or the softmax of the logits."""
    u = start(args, state, image, noise)
    if args["model"] == "c-flowssn":
        y, flow = u, Reference(state, "flow_net.", args)
        for i in range(50):
            y = y + (flow.unet(y, torch.full((len(y),), i / 50)).softmax(dim=1) - u) / 50
        return y
    flow = Reference(state, "flows.iaf.0.autoregressive_nn.", args)
    shift, raw = flow.transformer(u).chunk(2, dim=1)
    if args["flow_type"] == "gated":
        scale = torch.sigmoid(raw + 1) + 1e-5
        shift = (1 - scale) * shift
    else:
        scale = raw.exp().clamp(min=1e-5)
    return (shift + scale * u).softmax(dim=1)
