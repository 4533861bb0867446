"""Train SSNs and a Flow-SSN on MarkovShapes, whose distribution is known exactly, and write docs/markov_shapes.md.

    python scripts/markov_shapes.py                                            # five models, 20,000 steps each
    python scripts/markov_shapes.py --steps 300 --runs runs/try --out runs/try # a first look

Whatever is done lies in --runs, so the same command continues a run that was cut. It writes markov_shapes.md,
markov_shapes.json and three figures to --out, over the models that are finished.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import one_hot
from tqdm import tqdm

from monai_flowssn.data.markov_shapes import MarkovShapes
from monai_flowssn.metrics.rank import rank_from_spectrum
from monai_flowssn.networks.made import ConstantMaps, MaskedLinear
from monai_flowssn.segmenters.autoregressive import AutoregressiveFlowSSN
from monai_flowssn.segmenters.monte_carlo import MonteCarloSegmenter
from monai_flowssn.segmenters.ssn import SSN

DOCS = Path(__file__).resolve().parent.parent / "docs"
TOY = MarkovShapes()
SIZE, K, PIXELS = (16, 16), 2, 256
BLANK = torch.zeros(1, 1, *SIZE)  # there is one image, and it says nothing
RANKS = {"SSN r = 2": 2, "SSN r = 4": 4, "SSN r = 8": 8, "SSN full": K * PIXELS}
FLOW = "Flow-SSN"
EARLY = (10, 30, 100, 300)  # steps with a point of the curve besides the multiples of --every
CURVE_DRAWS, CHUNK, SHOWN = 16384, 4096, 20
Results = dict[str, dict[str, Any]]

TEXT = """# MarkovShapes

The toy of De Sousa Ribeiro et al. 2025 (arXiv 2507.18838, sec. 6.1): four quadrants of a label image, each empty or with a
square, a plus or a dot, chained by a Markov process. All 256 images and their probabilities are known
(`monai_flowssn.data.MarkovShapes`), so every number has an exact reference. Written by `scripts/markov_shapes.py`.

| model | parameters | BPD | above | TV | hallucinated | outside | covariance | erank | minutes |
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

## The paper's claims

{claims}

## How

Models without an image: maps that are parameters in the place of a network. SSN: mean, diagonal, and a factor with r columns
(for "full" {full}, as many as logits). Flow-SSN: base N(mu, I) with free mu, and one affine flow whose network is one linear
layer, masked strictly lower triangular (MADE), which starts at zero, so as the identity. Adam, learning rate {lr}, {batch} masks
drawn afresh in each of {steps} steps, {draws} draws of the logits, float32, seed {seed}, the last parameters. Nothing was tuned.

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


def build(name: str, draws: int) -> MonteCarloSegmenter:
    """Return a model of p(mask) at its start."""
    if name == FLOW:
        flow = MaskedLinear(SIZE, K, 2 * K)
        return AutoregressiveFlowSSN(ConstantMaps(torch.zeros(K, *SIZE)), flow, num_classes=K, train_draws=draws)
    r = RANKS[name]
    start = torch.cat([torch.zeros(2 * K, *SIZE), torch.randn(r * K, *SIZE) / math.sqrt(r)])
    return SSN(ConstantMaps(start), num_classes=K, rank=r, train_draws=draws)


def log_likelihood(log_p: Tensor, masks: Tensor) -> Tensor:
    """Return log p(mask | draw) (R, m) for log-probabilities (m, K, *S) and masks (R, *S): one matrix product."""
    picked = one_hot(masks.long(), K).movedim(-1, 1).flatten(1).float()  # (R, K * d)
    return picked @ log_p.flatten(1).T


def objective(model: MonteCarloSegmenter, masks: Tensor) -> Tensor:
    """Return the negative log-likelihood of masks (R, *S), all under the same draws, in nats per pixel."""
    logits = model.logits(model.encode(BLANK), model.training_noise(BLANK))[0]  # (m, K, *S)
    terms = log_likelihood(logits.log_softmax(dim=1), masks)
    return (math.log(len(logits)) - terms.logsumexp(dim=1)).mean() / PIXELS


@torch.inference_mode()
def evaluate(model: MonteCarloSegmenter, draws: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the metrics of many draws, taken chunk by chunk, and what the figures show."""
    code = model.encode(BLANK)
    log_sum = torch.full((len(TOY.images),), -math.inf, dtype=torch.float64)
    total, products = torch.zeros(PIXELS, dtype=torch.float64), torch.zeros(PIXELS, PIXELS, dtype=torch.float64)
    found, shown = [], []
    for start in range(0, draws, CHUNK):
        logits = model.logits(code, model.draw_noise(BLANK, min(CHUNK, draws - start)))[0]  # (m, K, *S)
        log_p = logits.log_softmax(dim=1)
        log_sum = log_sum.logaddexp(log_likelihood(log_p, TOY.images).double().logsumexp(dim=1))
        labels = logits.argmax(dim=1)
        found.append(TOY.identify(labels))
        shown.append(labels[: SHOWN if start == 0 else 0])
        p = log_p[:, 1].flatten(1).double().exp()  # (m, d)
        total += p.sum(dim=0)
        products += p.T @ p
    mean = total / draws
    covariance = products / draws - mean[:, None] * mean  # of the probabilities
    masks = covariance.clone().fill_diagonal_(0) + (mean * (1 - mean)).diag()  # of the pixels sampled from them
    return measure(log_sum - math.log(draws), torch.cat(found), covariance, masks), {
        "covariance": masks,
        "samples": torch.cat(shown),
    }


def measure(log_mass: Tensor, found: Tensor, covariance: Tensor, of_masks: Tensor) -> dict[str, float]:
    """Return the columns of the table; log_mass (256,) is the model's log-probability of each image."""
    bpd = -float(TOY.probabilities @ log_mass) / math.log(2) / PIXELS
    return {
        "bpd": bpd,
        "above": 100 * (bpd / TOY.bits_per_dimension - 1),
        "total_variation": TOY.total_variation(found),
        "hallucinated": float((found < 0).double().mean()),
        "outside": 1 - float(log_mass.exp().sum()),
        "covariance_error": float((of_masks - TOY.covariance).norm() / TOY.covariance.norm()),
        "erank": float(rank_from_spectrum(torch.linalg.eigvalsh(covariance))),
    }


def train(name: str, options: dict[str, Any], every: int, path: Path) -> MonteCarloSegmenter:
    """Train to the end, from where the file at path left off; return the model. Its curve lies in the file."""
    torch.manual_seed(options["seed"])
    model = build(name, options["draws"])
    optimiser = torch.optim.Adam(model.parameters(), options["lr"], fused=True)
    state: dict[str, Any] = {"options": options, "step": 0, "seconds": 0.0, "curve": []}
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state["options"] | {"steps": 0} != options | {"steps": 0}:
            raise SystemExit(f"{path} was made with {state['options']}: use the same options, or another --runs.")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
    first, losses, start = state["step"] + 1, [], time.perf_counter()
    for step in (bar := tqdm(range(first, options["steps"] + 1), desc=name)):
        loss = objective(model, TOY.sample(options["batch"]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()) / math.log(2))
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"{name}: the loss of step {step} is {losses[-1]}.")
        if step % every and step not in (*EARLY, options["steps"]):
            continue
        state["seconds"] += time.perf_counter() - start
        bpd = evaluate(model, CURVE_DRAWS)[0]["bpd"]
        state["curve"].append([step, bpd, sum(losses) / len(losses)])
        bar.set_postfix(bpd=f"{bpd:.5f}", objective=f"{state['curve'][-1][2]:.5f}")
        save(path, model, optimiser, state | {"step": step})
        losses, start = [], time.perf_counter()
    return model


def save(path: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Write a checkpoint that a cut leaves whole."""
    state |= {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "random": torch.get_rng_state()}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def run(name: str, options: dict[str, Any], every: int, eval_draws: int, folder: Path) -> None:
    """Train and evaluate one model unless that is done; leaves its .pt, .maps.pt and, last, .json."""
    path = folder / f"{stem(name)}.json"
    if path.exists() and (done := json.loads(path.read_text()))["options"] == options and done["draws"] == eval_draws:
        return
    model = train(name, options, every, path.with_suffix(".pt"))
    metrics, maps = evaluate(model, eval_draws)
    state = torch.load(path.with_suffix(".pt"), weights_only=True)
    torch.save(maps, path.with_suffix(".maps.pt"))
    masked = sum(int((m.mask == 0).sum()) for m in model.modules() if isinstance(m, MaskedLinear))
    summary = {
        "options": options,
        "draws": eval_draws,
        "parameters": sum(p.numel() for p in model.parameters()) - masked,
        "minutes": state["seconds"] / 60,
        "metrics": metrics,
        "curve": dict(zip(("step", "bpd", "objective"), zip(*state["curve"]))),
    }
    path.write_text(json.dumps(summary, indent=1) + "\n")


def stem(name: str) -> str:
    return name.lower().replace(" = ", "").replace(" ", "_").replace("-", "_")


def table(results: Results) -> str:
    """Return a row per model."""
    row = "| {name} | {parameters} | {bpd:.5f} | {above:.1f} % | {total_variation:.3f} | {hallucinated:.2%} | {outside:.2%} | "
    row += "{covariance_error:.3f} | {erank:.2f} | {minutes:.1f} |"
    return "\n".join(row.format(name=name, **result, **result["metrics"]) for name, result in results.items())


def claims(results: Results) -> str:
    """Confirm or refute what the paper says of these models, by the numbers of one training each."""
    if missing := [name for name in [*RANKS, FLOW] if name not in results]:
        return f"Not yet: {', '.join(missing)} not finished."
    metrics = {name: result["metrics"] for name, result in results.items()}
    lines = ["1. **Flow-SSN beats every SSN, the one of full rank included.**"]
    for key, title, form in (
        ("bpd", "BPD", ".5f"),
        ("total_variation", "TV", ".3f"),
        ("hallucinated", "hallucinated", ".2%"),
    ):
        best = min(RANKS, key=lambda name: metrics[name][key])
        flow, ssn = metrics[FLOW][key], metrics[best][key]
        verdict = "confirmed" if flow < ssn else "refuted"
        moved = max(abs(last_change(results[name]["curve"])) for name in (FLOW, best))
        if key == "bpd" and abs(flow / ssn - 1) < moved:
            verdict = f"not separated, for within the last tenth of the steps one of them changed by {moved:.1%}"
        lines.append(f"   {title} {flow:{form}} against {ssn:{form}} of {best}, the best SSN: {verdict}.")
    shares = {name: metrics[name]["hallucinated"] for name in [*RANKS, FLOW]}
    low = ", ".join(name for name in RANKS if shares[name] > max(shares["SSN full"], shares[FLOW])) or "no rank"
    listed = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    lines += [f"2. **Low rank hallucinates**, more than full rank and Flow-SSN: true of {low} alone.", f"   {listed}."]
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
    order = torch.arange(PIXELS).view(2, 8, 2, 8).transpose(1, 2).flatten()  # quadrant by quadrant
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


def read(folder: Path, options: dict[str, Any]) -> tuple[Results, dict[str, dict[str, Tensor]]]:
    """Return results and maps of the models that are finished with these options."""
    results: Results = {}
    maps = {}
    for name in [*RANKS, FLOW]:
        path = folder / f"{stem(name)}.json"
        if path.exists() and (result := json.loads(path.read_text()))["options"] == options:
            results[name] = result
            maps[name] = torch.load(path.with_suffix(".maps.pt"), weights_only=True)
    return results, maps


def report(results: Results, maps: dict[str, dict[str, Tensor]], out: Path) -> None:
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
        full=RANKS["SSN full"],
        curve_draws=CURVE_DRAWS,
        shown=SHOWN,
        **first["options"],
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "markov_shapes.md").write_text(text)
    (out / "markov_shapes.json").write_text(json.dumps({"oracle": oracle, "models": results}, indent=1) + "\n")
    draw_curves(results, out / "markov_shapes_bpd.png")
    draw_covariances(maps, out / "markov_shapes_covariance.png")
    draw_samples(maps, out / "markov_shapes_samples.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[*RANKS, FLOW], default=[*RANKS, FLOW], metavar="NAME")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--draws", type=int, default=512, help="draws of the logits in each step")
    parser.add_argument("--batch", type=int, default=32, help="masks in each step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=500, help="steps from one point of the curve to the next")
    parser.add_argument("--eval_draws", type=int, default=131072)
    parser.add_argument("--runs", type=Path, default=DOCS.parent / "runs" / "markov_shapes")
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    options = {key: getattr(arguments, key) for key in ("steps", "draws", "batch", "lr", "seed")}
    for name in arguments.models:
        run(name, options, arguments.every, arguments.eval_draws, arguments.runs)
    report(*read(arguments.runs, options), arguments.out)


if __name__ == "__main__":
    main()
