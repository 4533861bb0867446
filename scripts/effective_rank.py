"""Measure how the effective rank of an SSN's probabilities grows with the rank r of its logits: docs/effective_rank.md.

python scripts/effective_rank.py
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from monai_flowssn.metrics.rank import rank_from_spectrum
from monai_flowssn.networks.made import ConstantMaps
from monai_flowssn.segmenters.ssn import SSN

DOCS = Path(__file__).resolve().parent.parent / "docs"
SIZE, K = (16, 16), 2
BLANK = torch.zeros(1, 1, *SIZE)
RANKS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
DEVIATIONS = (1.0, 3.0, 10.0)  # of a logit, whatever r is: soft, common and almost binary probabilities
CHUNK = 4096

TEXT = """# Effective rank of an SSN's probabilities

An SSN of rank r spreads its logits over r directions; what counts is how far its *probabilities* spread. De Sousa Ribeiro et al.
2025 (arXiv 2507.18838, Theorem 4.4): the effective rank of Cov(softmax(eta)) grows sublinearly with r. Here: 16x16 pixels,
two classes, eta = P eps, P random with independent Gaussian entries, scaled so that every logit has the same standard deviation
for every r; {draws} draws; mean of {seeds} random P. A slope below 1 in a plot of logarithms is sublinear growth. Written by
`scripts/effective_rank.py`.

{table}

Doubling a small r more than doubles the effective rank, the more so the closer the probabilities are to 0 and 1, because the odd
powers of r directions span more directions than r. Over the whole range the slope is below 1, but that is no test of the theorem:
two classes in 256 pixels have 256 free numbers, and the range ends there. Up to r = 64 it is 1 or more. So what is seen to be
sublinear is the bound by the pixels, from about r = 16 on.

![Effective rank against r](effective_rank.png)
"""


def random_ssn(r: int, deviation: float) -> SSN:
    """Return an SSN without an image, of mean 0 and (but for the 1e-5 of the class) without pixel noise."""
    factor = torch.randn(r * K, *SIZE) * deviation / math.sqrt(r)
    maps = torch.cat([torch.zeros(K, *SIZE), torch.full((K, *SIZE), -30.0), factor])
    return SSN(ConstantMaps(maps), num_classes=K, rank=r)


@torch.inference_mode()
def covariance_ranks(model: SSN, draws: int) -> tuple[float, float]:
    """Return the effective rank of the covariance of the logits and of the probabilities."""
    code = model.encode(BLANK)
    chunks: list[tuple[Tensor, Tensor]] = []
    for start in range(0, draws, CHUNK):
        logits = model.logits(code, model.draw_noise(BLANK, min(CHUNK, draws - start)))[0]
        chunks.append((logits.flatten(1), logits.softmax(dim=1).flatten(1)))
    parts = (torch.cat(part).T.cov().double() for part in zip(*chunks))
    before, after = (float(rank_from_spectrum(torch.linalg.eigvalsh(part))) for part in parts)
    return before, after


def slope(values: list[float], first: int, last: int) -> float:
    """Return the least-squares slope of log(values) against log(r) for r from RANKS[first] to RANKS[last]."""
    x = torch.tensor(RANKS[first : last + 1]).double().log()
    y = torch.tensor(values[first : last + 1]).double().log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


def markdown(curves: dict[str, list[float]]) -> str:
    middle = RANKS.index(16)
    late = RANKS.index(64)
    ends = f"slope to r = {RANKS[middle]}", f"to r = {RANKS[late]}", f"from r = {RANKS[middle]}", "over all"
    lines = ["| r | " + " | ".join([*map(str, RANKS), *ends]) + " |", "|---" * (len(RANKS) + 5) + "|"]
    for name, values in curves.items():
        ranges = (0, middle), (0, late), (middle, len(RANKS) - 1), (0, len(RANKS) - 1)
        slopes = [slope(values, *ends) for ends in ranges]
        cells = [f"{value:.1f}" for value in values] + [f"{value:.2f}" for value in slopes]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(curves: dict[str, list[float]], path: Path) -> None:
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(RANKS, RANKS, "k--", label="slope 1", base=2)
    for name, values in curves.items():
        axes.loglog(RANKS, values, "o-" if "softmax" in name else "x:", label=name, base=2)
    axes.set(xlabel="rank r of the logits", ylabel="effective rank of the covariance")
    axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=16384)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    curves: dict[str, Any] = {}
    for deviation in tqdm(DEVIATIONS):
        ranks = torch.tensor(
            [
                [covariance_ranks(random_ssn(r, deviation), arguments.draws) for r in RANKS]
                for _ in range(arguments.seeds)
            ]
        ).mean(dim=0)  # (r, 2)
        curves.setdefault("logits", ranks[:, 0].tolist())  # of one shape, whatever the scale
        curves[f"softmax, std {deviation:g}"] = ranks[:, 1].tolist()
    arguments.out.mkdir(parents=True, exist_ok=True)
    summary = {"ranks": RANKS, "draws": arguments.draws, "seeds": arguments.seeds, "erank": curves}
    (arguments.out / "effective_rank.json").write_text(json.dumps(summary, indent=1) + "\n")
    text = TEXT.format(draws=arguments.draws, seeds=arguments.seeds, table=markdown(curves))
    (arguments.out / "effective_rank.md").write_text(text)
    draw(curves, arguments.out / "effective_rank.png")


if __name__ == "__main__":
    main()
