#!/usr/bin/env python
"""Time and memory of the metrics and of the continuous Flow-SSN on the CPU, printed with the machine.

python scripts/benchmark.py                            # everything, each part in its own process
python scripts/benchmark.py metrics_speed              # GED at N=100, R=4, 128x128, batch 16 against a broadcast
python scripts/benchmark.py metrics_evaluation         # all metrics of an evaluation per case, against each one on its own
python scripts/benchmark.py metrics_memory             # GED and HM-IoU at N=512, R=7, 256x256, with the peak memory
python scripts/benchmark.py sampling_memory            # passes of the base and peak memory for N = 16, 64, 256
python scripts/benchmark.py training --batch 8         # one step: plain float32 against the library's layout and precision
python scripts/benchmark.py sampling                   # seconds per image for N = 16, 100, both scales, plain and compiled too

OMP_NUM_THREADS sets the number of cores.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.metrics.calibration import calibration_binning
from scipy.optimize import linear_sum_assignment
from torch import nn

from monai_flowssn.handlers import CaseMetricHandler, standard_metrics
from monai_flowssn.inferers import DrawInferer, LossInferer
from monai_flowssn.metrics import PRESETS, Comparison, compute_ged, compute_hm_iou, hm_iou_from_iou, iou_table
from monai_flowssn.sampling import compile_steps

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SCALES = ("paper", "laptop")
DRAWS = (16, 64, 256)
KINDS = ("duplicate", "best")
BF16 = torch.cpu._is_avx512_bf16_supported()


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    bf16 = "bf16" if BF16 else "no bf16"
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {bf16}, torch {torch.__version__}"


def blobs(batch: int, maps: int, size: int) -> torch.Tensor:
    """Discs of about 1 % of the pixels whose centre and radius vary, some left out: the look of LIDC-IDRI."""
    axis = torch.arange(size) / size
    y, x, radius = (0.5 + 0.02 * torch.randn(batch, maps, 1, 1) for _ in range(3))
    disc = (axis[:, None] - y).square() + (axis - x).square() < (0.12 * radius).square()
    return (disc & (torch.rand(batch, maps, 1, 1) > 0.3)).long()


def noise(batch: int, maps: int, size: int) -> torch.Tensor:
    """Every pixel marked by half of the maps: the worst case."""
    return torch.randint(0, 2, (batch, maps, size, size))


def broadcast_ged(draws: torch.Tensor, raters: torch.Tensor) -> torch.Tensor:
    """The straightforward version: every pair of masks side by side, one image at a time to fit in memory."""

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = a[:, None].bool(), b[None].bool()
        inter, union = (a & b).sum((-2, -1)), (a | b).sum((-2, -1))
        return 1 - torch.where(union > 0, inter / union, 1.0)

    terms = [2 * distance(s, y).mean() - distance(s, s).mean() - distance(y, y).mean() for s, y in zip(draws, raters)]
    return torch.stack(terms)


def seconds(function: Callable[[], object], repeats: int) -> float:
    """The best of several runs: other processes may share the machine."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_gib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def metrics_speed(args: argparse.Namespace) -> None:
    print("GED_v, N=100, R=4, 128x128, batch 16, best of 5 (broadcast: one run)")
    print(f"{'masks':8} {'library ms':>12} {'broadcast ms':>14} {'ratio':>8} {'difference':>12}")
    for name, masks in {"blobs": blobs, "noise": noise}.items():
        draws, raters = masks(16, 100, 128), masks(16, 4, 128)
        expected = broadcast_ged(draws, raters)
        error = (compute_ged(draws, raters) - expected).abs().max().item()
        ours = seconds(lambda d=draws, r=raters: compute_ged(d, r), 5)
        theirs = seconds(lambda d=draws, r=raters: broadcast_ged(d, r), 1)
        print(f"{name:8} {1e3 * ours:12.1f} {1e3 * theirs:14.0f} {theirs / ours:8.0f} {error:12.1e}")
    draws, raters = blobs(16, 100, 128), blobs(16, 4, 128)
    hard = [c for c in PRESETS["standard"].choices if c.metric not in ("nll", "ece")]
    shared = seconds(lambda: Comparison(draws, raters).evaluate(hard), 3)
    print(f"\nall {len(hard)} label-map metrics of the standard preset, blobs: {1e3 * shared:.1f} ms")


def broadcast_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    inter, union = (a[:, None] & b[None]).sum((-2, -1)), (a[:, None] | b[None]).sum((-2, -1))
    return torch.where(union > 0, inter / union, 1.0)


def plain_metrics(draws: torch.Tensor, raters: torch.Tensor, pred: torch.Tensor) -> None:
    """The standard metrics of one case, each by itself: draws (N, H, W) and raters (R, H, W) boolean, pred (N, 2, H, W)."""

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (1 - broadcast_iou(a, b)).mean()

    def matched(repeats: int) -> float:
        cost = broadcast_iou(draws, raters.repeat_interleave(repeats, 0)).numpy()
        return cost[linear_sum_assignment(cost, maximize=True)].mean()

    n, r = len(draws), len(raters)
    for _ in ("v", "u"):
        2 * distance(draws, raters) - distance(draws, draws) - distance(raters, raters)
    distance(draws, draws)
    matched(n // r), matched(1)
    broadcast_iou(pred.mean(0).argmax(0)[None].bool(), raters.float().mean(0)[None] > 0.5)
    log_p = torch.stack(
        [pred.gather(1, y.long().expand(n, 1, -1, -1)).clamp(1e-6).log().sum((1, 2, 3)) for y in raters]
    )
    log_p.logsumexp(1).mean()
    calibration_binning(pred.mean(0)[None, 1:], raters.float().mean(0)[None, None], num_bins=10)


def metrics_evaluation(args: argparse.Namespace) -> None:
    cases, sizes = 8, (16, 100)
    print(f"all metrics of an evaluation, N={sizes[0]} and {sizes[1]}, R=4, 128x128, blobs, per case (mean of {cases})")
    draws, raters = blobs(cases, sizes[1], 128), blobs(cases, 4, 128)
    pred = 0.98 * nn.functional.one_hot(draws, 2).movedim(-1, 2) + 0.01
    items = [{"draws": d.byte(), "label": y.byte(), "pred": p} for d, y, p in zip(draws, raters, pred)]

    def plain() -> None:
        for d, y, p in zip(draws.bool(), raters.bool(), pred):
            for n in sizes:
                plain_metrics(d[:n], y, p[:n])

    def ours(handlers: dict[str, CaseMetricHandler]) -> None:
        for item in items:
            output = [item]
            for handler in handlers.values():
                handler.update(handler._output_transform(output))

    slow = seconds(plain, 1) / cases
    print(f"{'metrics':34} {'columns':>8} {'ms / case':>10} {'s / 400':>8} {'ratio':>6}")
    print(f"{'standard, each by itself, broadcast':34} {16:8} {1e3 * slow:10.0f} {400 * slow:8.0f} {1:6.1f}")
    for name, options in {
        "standard": {},
        "and GED at six more N": {"ged_draws": (1, 2, 4, 8, 32, 64)},
        "and extended": {"ged_draws": (1, 2, 4, 8, 32, 64), "presets": "extended"},
    }.items():
        handlers = standard_metrics(draws=sizes, **options)
        fast = seconds(lambda handlers=handlers: ours(handlers), 2) / cases
        print(f"{name:34} {len(handlers):8} {1e3 * fast:10.0f} {400 * fast:8.0f} {slow / fast:6.1f}", flush=True)


def metrics_memory(args: argparse.Namespace) -> None:
    print("N=512, R=7, 256x256, one case, noise (the worst case)")
    draws, raters = noise(1, 512, 256), noise(1, 7, 256)
    before = peak_gib()
    ged = seconds(lambda: compute_ged(draws, raters), 1)
    after_ged = peak_gib()
    matching = {kind: seconds(lambda kind=kind: compute_hm_iou(draws, raters, matching=kind), 1) for kind in KINDS}
    table = iou_table(draws, raters)
    alone = {kind: seconds(lambda kind=kind: hm_iou_from_iou(table, matching=kind), 1) for kind in KINDS}
    print(f"{'peak before (imports and int64 masks)':42} {before:6.2f} GiB")
    print(f"{'peak after GED':42} {after_ged:6.2f} GiB")
    print(f"{'peak after HM-IoU':42} {peak_gib():6.2f} GiB")
    print(f"{'GED':42} {1e3 * ged:6.0f} ms")
    for kind in KINDS:
        print(f"{f'HM-IoU {kind} (of it matching)':42} {1e3 * matching[kind]:6.0f} ms ({1e3 * alone[kind]:.0f} ms)")


def build(scale: str) -> nn.Module:
    """The continuous Flow-SSN at a scale, in the memory layout of the bundles."""
    names = ["common", "data/lidc", *(f"methods/flowssn_continuous/{name}" for name in ("model", scale))]
    parser = ConfigParser()
    for name in names:
        parser.update(ConfigParser.load_config_file(CONFIGS / f"{name}.yaml"))
    return parser.get_parsed_content("network_def").to(memory_format=torch.channels_last)


def draw(model: nn.Module, image: torch.Tensor, n: int) -> torch.Tensor:
    with torch.inference_mode():
        return DrawInferer(n)(image, model)


def sampling_memory(args: argparse.Namespace) -> None:
    if args.draws is None:
        print(f"sampling of two {args.size}x{args.size} images at paper size, 10 steps, each N in its own process")
        print(
            f"{'N':>5} {'passes of the base':>20} {'peak MiB':>10} {'of it output':>14} {'peak - output':>15}",
            flush=True,
        )
        for n in DRAWS:
            subprocess.run([*command("sampling_memory", args), "--draws", str(n)], check=True)
        return
    model, passes = build("paper").eval(), []
    model.base.register_forward_hook(lambda *_: passes.append(1))
    draws = draw(model, torch.randn(2, 1, args.size, args.size), args.draws)
    peak, output = 1024 * peak_gib(), draws.nbytes / 2**20
    print(f"{args.draws:5} {len(passes):20} {peak:10.0f} {output:14.0f} {peak - output:15.0f}")


def train_step(model: nn.Module, *, plain: bool) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """One iteration as in configs/train.yaml: loss, backward pass, clipping, AdamW."""
    model = model.train().to(memory_format=torch.contiguous_format if plain else torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    inferer = LossInferer(autocast=not plain)

    def step(image: torch.Tensor, masks: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        inferer(image, model, masks)["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    return step


def training(args: argparse.Namespace) -> None:
    print(f"training step at paper size, batch {args.batch}, {args.size}x{args.size}, best of 3 after one to warm up")
    print(f"{'version':32} {'s / step':>10} {'images / s':>12} {'ratio':>8}")
    image, masks = torch.randn(args.batch, 1, args.size, args.size), blobs(args.batch, 4, args.size)
    fast = "channels last, " + ("bf16" if BF16 else "float32")
    times: list[float] = []
    for name, plain in {"channels first, float32": True, fast: False}.items():
        step = train_step(build("paper"), plain=plain)
        step(image, masks)
        times.append(seconds(lambda step=step: step(image, masks), 3))
        print(f"{name:32} {times[-1]:10.2f} {args.batch / times[-1]:12.1f} {times[0] / times[-1]:8.2f}", flush=True)


def plain_sampler(model: nn.Module) -> nn.Module:
    """The straightforward way: float32, channels first, all draws as one batch."""
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    model.pixels_at_once = 2**40
    return model


def sampling(args: argparse.Namespace) -> None:
    size = f"{args.size}x{args.size}"
    print(
        f"drawing for one {size} image; plain: float32, channels first, one batch of all draws; same weights and noise\n"
        "ratio: of plain; equal: share of pixels and draws with the label of plain; first s: with the compilation"
    )
    print(
        f"{'scale':8} {'parameters':>11} {'steps':>6} {'N':>4} {'way':>9} {'first s':>8} {'s':>8} {'ratio':>6} {'equal':>7}"
    )
    image = torch.randn(1, 1, args.size, args.size)
    for scale in SCALES:
        model = build(scale).eval()
        for weight in model.parameters():  # heads start at 0, and would give every pixel the same label
            if weight.ndim > 1 and not weight.any():
                nn.init.normal_(weight)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        compiled = copy.deepcopy(model)
        compile_steps(compiled)
        ways = {"plain": plain_sampler(model), "ours": model, "compiled": compiled}
        for steps, n in [(10, 16), (10, 100), (1, 100)] if args.draws is None else [(10, args.draws)]:
            for name, network in ways.items():
                network.steps, inferer = steps, DrawInferer(n, seed=0, autocast=name != "plain")
                run = functools.partial(inferer, image, network)
                with torch.inference_mode():
                    start = time.perf_counter()
                    labels = run().argmax(dim=2)
                    first = time.perf_counter() - start
                    best = min(first, seconds(run, 1 if name == "plain" else 2))
                if name == "plain":
                    expected, time_of_plain = labels, best
                equal = (labels == expected).float().mean().item()
                print(
                    f"{scale:8} {parameters:11,} {steps:6} {n:4} {name:>9} {first:8.2f} {best:8.2f} "
                    f"{time_of_plain / best:6.1f} {equal:7.4f}",
                    flush=True,
                )


def command(part: str, args: argparse.Namespace) -> list[str]:
    return [sys.executable, __file__, part, "--batch", str(args.batch), "--size", str(args.size)]


PARTS = {
    part.__name__: part
    for part in (metrics_speed, metrics_evaluation, metrics_memory, sampling_memory, training, sampling)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=list(PARTS))
    parser.add_argument("--batch", type=int, default=32, help="images of a training step")
    parser.add_argument("--size", type=int, default=128, help="edge of the image of a model")
    parser.add_argument("--draws", type=int, help="measure sampling or sampling_memory for this N only")
    args = parser.parse_args()
    if args.part:
        if args.draws is None or args.part == "sampling":
            print(machine(), flush=True)
        torch.manual_seed(0)
        PARTS[args.part](args)
        return
    for name in PARTS:
        subprocess.run(command(name, args), check=True)
        print(flush=True)


if __name__ == "__main__":
    main()
