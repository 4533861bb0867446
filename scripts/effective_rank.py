"""Measure how the effective rank of an SSN's probabilities grows with the rank r of its logits: docs/effective_rank.md.

python scripts/effective_rank.py
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from monai_flowssn.metrics.rank import rank_from_spectrum
from monai_flowssn.networks.made import ConstantMaps
from monai_flowssn.segmenters.ssn import SSN

DOCS = Path(__file__).resolve().parent.parent / "docs"
SIZES, K = (16, 64), 2
RANKS = [1, 2, 4, 8, 16, 32, 64]
DEVIATIONS = (1.0, 3.0, 10.0)  # of a logit, whatever r is: soft, common and almost binary probabilities
CHUNK = 2048

TEXT = """# Effective rank of an SSN's probabilities

An SSN of rank r spreads its logits over r directions; what counts is how far its *probabilities* spread. De Sousa Ribeiro et al.
2025 (arXiv 2507.18838, Theorem 4.4): the effective rank of Cov(softmax(eta)) grows sublinearly with r. Here: two classes,
eta = P eps, P random with independent Gaussian entries, scaled so that every logit has the same standard deviation for every r;
16x16 and 64x64 pixels; {draws} draws; mean of {seeds} random P. A slope below 1 in a plot of logarithms is sublinear growth.
Written by `scripts/effective_rank.py`.

{table}

**It grows faster than r, until the pixels are spent.** Seen as a function of eps, a pixel's probability is f(s z) with z
standard normal, f the logistic function and s the deviation of the difference of its logits. Its part of Hermite degree k, with
the share c_k of the variance, spreads over about r^k / k! directions, so for enough pixels the effective rank grows as r to the
power sum_k k c_k = s^2 E[f'(s z)^2] / Var f(s z). By the Gaussian Poincare inequality this is 1 for linear f and above 1 for
every other: *limit* in the table, to which the slopes rise from 256 to 4,096 pixels (std 1: 1.06 of 1.08). The curve bends
where the r^k / k! directions come near the number of pixels, the sooner the nearer the probabilities are to 0 and 1: the
sublinear growth that is seen there is the bound by the pixels. Before it, at the ranks that an SSN has (10, for 4,096 pixels
and more), doubling r more than doubles the effective rank.

![Effective rank against r](effective_rank.png)
"""


def limit_slope(deviation: float) -> float:
    """Return the slope for endless pixels and ranks: the ratio of the Gaussian Poincare inequality of a probability."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights, scale = weights / weights.sum(), deviation * math.sqrt(2)  # of the difference of two logits
    f = 1 / (1 + np.exp(-scale * nodes))
    slope = scale * f * (1 - f)
    return float(weights @ slope**2 / (weights @ f**2 - (weights @ f) ** 2))


def random_ssn(r: int, deviation: float, size: int) -> SSN:
    """Return an SSN without an image, of mean 0 and (but for the 1e-5 of the class) without pixel noise."""
    factor = torch.randn(r * K, size, size) * deviation / math.sqrt(r)
    maps = torch.cat([torch.zeros(K, size, size), torch.full((K, size, size), -30.0), factor])
    return SSN(ConstantMaps(maps), num_classes=K, rank=r)


@torch.inference_mode()
def covariance_rank(model: SSN, draws: int, size: int) -> float:
    """Return the effective rank of the covariance of the foreground's probabilities, which say those of the background too."""
    blank = torch.zeros(1, 1, size, size)
    code = model.encode(blank)
    total = torch.zeros(size * size, size * size)
    for start in range(0, draws, CHUNK):
        logits = model.logits(code, model.draw_noise(blank, min(CHUNK, draws - start)))[0]
        p = logits.softmax(dim=1)[:, 1].flatten(1) - 0.5  # its mean, as P and eps are symmetric
        total += p.T @ p
    return float(rank_from_spectrum(torch.linalg.eigvalsh(total)))


def slope(values: list[float], ranks: int = len(RANKS)) -> float:
    """Return the least-squares slope of log(values) against log(r) for the first ranks."""
    return float(np.polyfit(np.log(RANKS[:ranks]), np.log(values[:ranks]), 1)[0])


def markdown(curves: dict[str, list[float]], limits: dict[str, float]) -> str:
    lines = ["| r | " + " | ".join([*map(str, RANKS), "slope to r = 16", "slope", "limit"]) + " |"]
    lines.append("|---" * (len(RANKS) + 4) + "|")
    for name, values in curves.items():
        early = slope(values, RANKS.index(16) + 1)
        cells = [f"{value:.1f}" for value in values] + [f"{x:.2f}" for x in (early, slope(values), limits[name])]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(curves: dict[str, list[float]], path: Path) -> None:
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(RANKS, RANKS, "k--", label="slope 1", base=2)
    for i, (name, values) in enumerate(curves.items()):
        big = i >= len(DEVIATIONS)
        axes.loglog(RANKS, values, "o-" if big else "x:", color=f"C{i % len(DEVIATIONS)}", label=name, base=2)
    axes.set(xlabel="rank r of the logits", ylabel="effective rank of the covariance of probabilities")
    axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=16384)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    curves, limits = {}, {}
    for size, deviation in tqdm(list(product(SIZES, DEVIATIONS))):
        name = f"{size}x{size}, std {deviation:g}"
        ranks = [
            [covariance_rank(random_ssn(r, deviation, size), arguments.draws, size) for r in RANKS]
            for _ in range(arguments.seeds)
        ]
        curves[name] = np.mean(ranks, axis=0).tolist()
        limits[name] = limit_slope(deviation)
    arguments.out.mkdir(parents=True, exist_ok=True)
    summary = {"ranks": RANKS, "draws": arguments.draws, "seeds": arguments.seeds, "erank": curves, "limits": limits}
    (arguments.out / "effective_rank.json").write_text(json.dumps(summary, indent=1) + "\n")
    text = TEXT.format(draws=arguments.draws, seeds=arguments.seeds, table=markdown(curves, limits))
    (arguments.out / "effective_rank.md").write_text(text)
    draw(curves, arguments.out / "effective_rank.png")


if __name__ == "__main__":
    main()
