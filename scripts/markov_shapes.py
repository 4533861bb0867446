"""Train SSNs and Flow-SSNs on MarkovShapes, whose distribution is known exactly, and write docs/markov_shapes.md.

    python scripts/markov_shapes.py                                            # six models, 20,000 steps each
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
from markov_page import FLOWS, SHOWN, SSNS, Results, report
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import one_hot
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from monai_flowssn.data.markov_shapes import MarkovShapes
from monai_flowssn.metrics.rank import rank_from_spectrum
from monai_flowssn.networks.made import ConstantMaps, MaskedLinear
from monai_flowssn.segmenters.autoregressive import AutoregressiveFlowSSN
from monai_flowssn.segmenters.base import StochasticSegmenter
from monai_flowssn.segmenters.continuous import ContinuousFlowSSN
from monai_flowssn.segmenters.ssn import SSN

DOCS = Path(__file__).resolve().parent.parent / "docs"
TOY = MarkovShapes()
SIZE, K, PIXELS = (16, 16), 2, 256
BLANK = torch.zeros(1, 1, *SIZE)  # there is one image, and it says nothing
RANKS = dict(zip(SSNS, (2, 4, 8, K * PIXELS), strict=True))
FLOW, CONTINUOUS = FLOWS
MODELS = [*SSNS, *FLOWS]
EARLY = (10, 30, 100, 300)  # steps with a point of the curve besides the multiples of --every
CURVE_DRAWS, CHUNK = 16384, 4096


class PixelMLP(nn.Module):
    """The flow network of the continuous Flow-SSN: all pixels and the time, three hidden layers."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.first = nn.Linear(K * PIXELS + 32, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.last = nn.Linear(width, K * PIXELS)

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        h = F.silu(self.first(torch.cat([y.flatten(1), get_timestep_embedding(1000 * t, 32)], dim=1)))
        for layer in self.hidden:
            h = h + F.silu(layer(h))
        return self.last(h).unflatten(1, (K, *SIZE))


def build(name: str, draws: int) -> StochasticSegmenter:
    """Return a model of p(mask) at its start."""
    if name == CONTINUOUS:
        return ContinuousFlowSSN(ConstantMaps(torch.zeros(K, *SIZE)), PixelMLP(), num_classes=K, steps=50)
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


def objective(model: Any, masks: Tensor) -> Tensor:
    """Return the negative log-likelihood of masks (R, *S), all under the same draws, in nats per pixel; or what bounds it."""
    if isinstance(model, ContinuousFlowSSN):
        return model.loss(BLANK.expand(len(masks), -1, -1, -1), masks[:, None])["loss"]
    logits = model.logits(model.encode(BLANK), model.training_noise(BLANK))[0]  # (m, K, *S)
    terms = log_likelihood(logits.log_softmax(dim=1), masks)
    return (math.log(len(logits)) - terms.logsumexp(dim=1)).mean() / PIXELS


@torch.inference_mode()
def evaluate(model: StochasticSegmenter, draws: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the metrics of many draws, taken chunk by chunk, and what the figures show."""
    log_sum = torch.full((len(TOY.images),), -math.inf, dtype=torch.float64)
    total, products = torch.zeros(PIXELS, dtype=torch.float64), torch.zeros(PIXELS, PIXELS, dtype=torch.float64)
    found, shown = [], []
    for start in range(0, draws, CHUNK):
        probabilities = model.sample(BLANK, min(CHUNK, draws - start))[0]  # (m, K, *S)
        log_p = probabilities.clamp(min=1e-30).log()
        log_sum = log_sum.logaddexp(log_likelihood(log_p, TOY.images).double().logsumexp(dim=1))
        labels = probabilities.argmax(dim=1)
        found.append(TOY.identify(labels))
        shown.append(labels[: SHOWN if start == 0 else 0])
        p = probabilities[:, 1].flatten(1).double()  # (m, d)
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


def train(name: str, options: dict[str, Any], every: int, path: Path) -> nn.Module:
    """Train to the end, from where the file at path left off; return the average. The curve lies in the file."""
    torch.manual_seed(options["seed"])
    model = build(name, options["draws"])
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    parts: dict[str, Any] = {"model": model, "average": average}
    parts["optimiser"] = torch.optim.Adam(model.parameters(), options["lr"], fused=True)
    parts["schedule"] = torch.optim.lr_scheduler.CosineAnnealingLR(parts["optimiser"], options["steps"])
    state: dict[str, Any] = {"options": options, "step": 0, "seconds": 0.0, "curve": []}
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state["options"] != options:
            raise SystemExit(f"{path} was made with {state['options']}: use the same options, or another --runs.")
        for part in parts:
            parts[part].load_state_dict(state[part])
        torch.set_rng_state(state["random"])
    first, losses, start = state["step"] + 1, [], time.process_time()
    for step in (bar := tqdm(range(first, options["steps"] + 1), desc=name)):
        loss = objective(model, TOY.sample(options["batch"]))
        parts["optimiser"].zero_grad()
        loss.backward()
        parts["optimiser"].step()
        parts["schedule"].step()
        average.update_parameters(model)
        losses.append(float(loss.detach()) / math.log(2))
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"{name}: the loss of step {step} is {losses[-1]}.")
        if step % every and step not in (*EARLY, options["steps"]):
            continue
        state["seconds"] += time.process_time() - start
        bpd = evaluate(average.module, CURVE_DRAWS)[0]["bpd"]
        state["curve"].append([step, bpd, sum(losses) / len(losses)])
        bar.set_postfix(bpd=f"{bpd:.5f}", objective=f"{state['curve'][-1][2]:.5f}")
        state |= {
            "step": step,
            "random": torch.get_rng_state(),
            **{key: part.state_dict() for key, part in parts.items()},
        }
        save(path, state)
        losses, start = [], time.process_time()
    return average.module


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint that a cut leaves whole."""
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


def read(folder: Path, options: dict[str, Any]) -> tuple[Results, dict[str, dict[str, Tensor]]]:
    """Return results and maps of the models that are finished with these options."""
    results: Results = {}
    maps = {}
    for name in MODELS:
        path = folder / f"{stem(name)}.json"
        if path.exists() and (result := json.loads(path.read_text()))["options"] == options:
            results[name] = result
            maps[name] = torch.load(path.with_suffix(".maps.pt"), weights_only=True)
    return results, maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--draws", type=int, default=512, help="draws of the logits in each step")
    parser.add_argument("--batch", type=int, default=128, help="masks in each step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=2000, help="steps from one point of the curve to the next")
    parser.add_argument("--eval_draws", type=int, default=131072)
    parser.add_argument("--runs", type=Path, default=DOCS.parent / "runs" / "markov_shapes")
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    options = {key: getattr(arguments, key) for key in ("steps", "draws", "batch", "lr", "seed")}
    for name in arguments.models:
        run(name, options, arguments.every, arguments.eval_draws, arguments.runs)
    report(*read(arguments.runs, options), CURVE_DRAWS, arguments.out)


if __name__ == "__main__":
    main()
