"""The page and the figures of markov_shapes.py."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from monai_flowssn.data.markov_shapes import MarkovShapes
from monai_flowssn.metrics.rank import rank_from_spectrum

TOY = MarkovShapes()
SHOWN = 20  # samples in a row
SSNS, FLOWS = ("SSN r = 2", "SSN r = 4", "SSN r = 8", "SSN full"), ("Flow-SSN", "Flow-SSN, continuous")
COMPARED = (("bpd", "BPD", ".5f"), ("total_variation", "TV", ".3f"), ("hallucinated", "hallucinated", ".2%"))
Results = dict[str, dict[str, Any]]

TEXT = """# MarkovShapes

The toy of De Sousa Ribeiro et al. 2025 (arXiv 2507.18838, sec. 6.1): four quadrants of a label image, each empty or with a
square, a plus or a dot, chained by a Markov process. All 256 images and their probabilities are known
(`monai_flowssn.data.MarkovShapes`), so every number has an exact reference. Written by `scripts/markov_shapes.py`.

| model | parameters | BPD | above | TV | hallucinated | outside | covariance | erank | CPU minutes |
|---|---|---|---|---|---|---|---|---|---|
{table}

* **BPD**, bits per dimension: the negative log-likelihood per pixel, averaged exactly over the 256 images, with {eval_draws}
  draws of the logits. No model can be below the entropy, {floor:.5f}; *above* is the excess in per cent.
* **TV**: total variation distance between the label images (argmax) of {eval_draws} draws and the true distribution; a perfect
  sampler of as many images scores {tv_floor:.3f}.
* **Hallucinated**: share of these label images that are none of the 256. **Outside**: probability that an image is none of the
  256 when each pixel is sampled from the softmax.
* **Covariance**: relative error (Frobenius norm) of the covariance of the pixels of a mask.
* **erank**: effective rank of Cov(softmax(eta)); that of the true covariance, whose rank is 12, is {erank:.2f}.

**Why SSNs hallucinate.** The shapes lie in each other (dot in plus in square), so the labels of one quadrant are those of one
number against three thresholds, which rank 1 can do. But an image then is a Gaussian copula of four numbers, and a square is
rarely beside a square and often beside a plus: no correlation says that. More directions for a quadrant would, where the arms
of a plus could come without its middle, which is a hallucination. So a Gaussian, of any rank, pays in one way or the other; a
flow need not.

## The paper's claims

{claims}

## How

Models without an image: maps that are parameters in the place of a network. SSN: mean, diagonal, and a factor with r columns
(for "full" 512, as many as logits). Flow-SSN: base N(mu, I) with free mu, and one affine flow whose network is one linear
layer, masked strictly lower triangular (MADE), which starts at zero, so as the identity. Continuous: the same base, and an MLP
of three hidden layers of 512 that sees all pixels; 50 steps a draw. Adam, learning rate {lr} falling to zero as a cosine,
{batch} masks drawn afresh in each of {steps} steps, {draws} draws of the logits, an average over about 1,000 steps, float32,
seed {seed}.

Ours, because the paper leaves it open: the drawing of the shapes (see the class), the start of the SSN (mean and log-variance 0,
factor N(0, 1/r)), and that **the {draws} draws of a step score all of its {batch} masks**, as they can where no image tells the
masks apart: in expectation the objective of {draws} draws for each mask, for {batch} times less work.

![BPD against steps](markov_shapes_bpd.png)

BPD with {curve_draws} draws, during training.

![Covariances](markov_shapes_covariance.png)

Covariance of the pixels, sorted by quadrant (top left, top right, bottom left, bottom right).

![Samples](markov_shapes_samples.png)

Label images of the first {shown} draws; a red frame marks a hallucination.
"""


def table(results: Results) -> str:
    """Return a row per model."""
    row = "| {name} | {parameters} | {bpd:.5f} | {above:.1f} % | {total_variation:.3f} | {hallucinated:.2%} | {outside:.2%} | "
    row += "{covariance_error:.3f} | {erank:.2f} | {minutes:.1f} |"
    return "\n".join(row.format(name=name, **result, **result["metrics"]) for name, result in results.items())


def claims(results: Results) -> str:
    """Say what the numbers of one training each say of the paper's claims."""
    if missing := [name for name in [*SSNS, *FLOWS] if name not in results]:
        return f"Not yet: {', '.join(missing)} not finished."
    metrics = {name: result["metrics"] for name, result in results.items()}
    lines = ["1. **Flow-SSN beats every SSN, the one of full rank included.**"]
    for flow, (key, title, form) in product(FLOWS, COMPARED):
        best = min(SSNS, key=lambda name: metrics[name][key])
        ours, theirs = metrics[flow][key], metrics[best][key]
        verdict = "holds" if ours < theirs else "does not hold"
        moved = max(abs(last_change(results[name]["curve"])) for name in (flow, best))
        if key == "bpd" and abs(ours / theirs - 1) < moved:
            verdict = f"not separated, for within the last tenth of the steps one of them changed by {moved:.1%}"
        lines.append(f"   {flow}, {title} {ours:{form}} against {theirs:{form}} of {best}, the best SSN: {verdict}.")
    shares = {name: metrics[name]["hallucinated"] for name in [*SSNS, *FLOWS]}
    low = ", ".join(name for name in SSNS if shares[name] > max(shares["SSN full"], shares[FLOWS[0]])) or "no rank"
    listed = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    lines += [f"2. **Low rank hallucinates**, more than full rank and Flow-SSN: true of {low}.", f"   {listed}."]
    changes = [f"{name} {last_change(result['curve']):+.1%}" for name, result in results.items()]
    return "\n".join([*lines, "", f"BPD over the last tenth of the steps: {', '.join(changes)}."])


def last_change(curve: dict[str, list[float]]) -> float:
    before = next(bpd for step, bpd in zip(curve["step"], curve["bpd"]) if step >= 0.9 * curve["step"][-1])
    return curve["bpd"][-1] / before - 1


def draw_curves(results: Results, path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, result in results.items():
        axes.loglog(result["curve"]["step"], result["curve"]["bpd"], label=name)
    axes.axhline(TOY.bits_per_dimension, color="black", linestyle="--", label=f"floor {TOY.bits_per_dimension:.5f}")
    axes.set(xlabel="step", ylabel="bits per dimension")
    axes.legend()
    figure.savefig(path, dpi=100)


def draw_covariances(maps: dict[str, dict[str, Tensor]], path: Path) -> None:
    order = torch.arange(256).view(2, 8, 2, 8).transpose(1, 2).flatten()  # quadrant by quadrant
    panels = {"true": TOY.covariance, **{name: entry["covariance"] for name, entry in maps.items()}}
    figure = Figure(figsize=(3 * 3, 3 * math.ceil(len(panels) / 3)), layout="constrained")
    grid = figure.subplots(math.ceil(len(panels) / 3), 3, squeeze=False).flat
    for axes, (name, covariance) in zip(grid, panels.items()):
        shown = axes.imshow(covariance[order][:, order], cmap="RdBu_r", vmin=-0.25, vmax=0.25)
        axes.set_title(name)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.colorbar(shown, ax=figure.axes, shrink=0.5)
    figure.savefig(path, dpi=100)


def draw_samples(maps: dict[str, dict[str, Tensor]], path: Path) -> None:
    rows = {"true": TOY.sample(SHOWN, torch.Generator().manual_seed(0))} | {n: e["samples"] for n, e in maps.items()}
    figure = Figure(figsize=(0.6 * SHOWN, 0.72 * len(rows)), layout="constrained")
    for line, (name, labels) in zip(figure.subplots(len(rows), SHOWN, squeeze=False), rows.items()):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes, label, found in zip(line, labels, TOY.identify(labels)):
            axes.imshow(label, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color="red" if found < 0 else "gray", linewidth=2.5 if found < 0 else 0.5)
    figure.savefig(path, dpi=100)


def report(results: Results, maps: dict[str, dict[str, Tensor]], curve_draws: int, out: Path) -> None:
    """Write text, numbers and figures."""
    first = next(iter(results.values()))
    oracle = {"bpd": TOY.bits_per_dimension, "erank": float(rank_from_spectrum(torch.linalg.eigvalsh(TOY.covariance)))}
    text = TEXT.format(
        table=table(results),
        claims=claims(results),
        eval_draws=first["draws"],
        floor=TOY.bits_per_dimension,
        tv_floor=TOY.expected_total_variation(first["draws"]),
        erank=oracle["erank"],
        curve_draws=curve_draws,
        shown=SHOWN,
        **first["options"],
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "markov_shapes.md").write_text(text)
    (out / "markov_shapes.json").write_text(json.dumps({"oracle": oracle, "models": results}, indent=1) + "\n")
    draw_curves(results, out / "markov_shapes_bpd.png")
    draw_covariances(maps, out / "markov_shapes_covariance.png")
    draw_samples(maps, out / "markov_shapes_samples.png")
