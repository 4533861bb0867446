#!/usr/bin/env python
"""Time and memory of the set metrics, printed with the machine.

python scripts/benchmark_metrics.py            # everything, each part in its own process
python scripts/benchmark_metrics.py speed      # GED at N=100, R=4, 128x128, batch 16 against a broadcast
python scripts/benchmark_metrics.py memory     # GED and HM-IoU at N=512, R=7, 256x256, with the peak memory
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from monai_flowssn.metrics import PRESETS, Comparison, compute_ged, compute_hm_iou, hm_iou_from_iou, iou_table


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


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


def speed() -> None:
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


def memory() -> None:
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


KINDS = ("duplicate", "best")
PARTS = {"speed": speed, "memory": memory}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=list(PARTS))
    part = parser.parse_args().part
    if part is None:
        print(machine())
        for name in PARTS:
            print(flush=True)
            subprocess.run([sys.executable, __file__, name], check=True)
    else:
        torch.manual_seed(0)
        PARTS[part]()
