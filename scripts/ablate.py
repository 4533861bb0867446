"""Measure how velocity, grid power and steps of a trained continuous Flow-SSN change its draws, on the validation split.

    python scripts/ablate.py --config_file FILES --limit 100 --out docs/ablation [overrides as for monai.bundle run]

The same noise is used for every setting, so that differences are those of the integration. Writes OUT.json and OUT.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import fire
import torch
from monai.bundle import ConfigWorkflow
from tqdm import tqdm

from monai_flowssn.inferers import cpu_autocast
from monai_flowssn.metrics import ged_from_iou, iou_table
from monai_flowssn.weights import load_weights


def load(config_file: list[str], limit: int, overrides: dict[str, Any]) -> tuple[torch.nn.Module, list[dict[str, Any]]]:
    """Return the network with its weights, and the batches of the validation split."""
    options = {"split": "val", "limit": limit, **overrides}
    flow = ConfigWorkflow(config_file=config_file, workflow_type="inference", logging_file=False, **options)
    network = flow.parser.get_parsed_content("network").eval()
    load_weights(network, flow.parser.get_parsed_content("model_path"))
    return network, list(flow.parser.get_parsed_content("validate::dataloader"))


@torch.inference_mode()
def measure(network: Any, batches: list[dict[str, Any]], draws: int) -> dict[str, float]:
    """Return GED in both estimators, the share of wholly empty draws, and the time."""
    torch.manual_seed(0)
    device = next(network.parameters()).device
    tables, empty, start = [], [], time.perf_counter()
    for batch in batches:
        image, label = (batch[key].as_tensor().to(device) for key in ("image", "label"))
        with cpu_autocast(image.device):
            maps = network.sample(image, draws).argmax(dim=2)
        tables.append(iou_table(maps, label))
        empty.append((maps == 0).flatten(2).all(dim=2).float().mean(dim=1))
    seconds = time.perf_counter() - start
    mean = {
        f"ged_{name}_n{draws}": torch.cat([ged_from_iou(table, estimator=name) for table in tables]).mean()
        for name in "vu"
    }
    cases = sum(len(part) for part in empty)
    return {
        **{k: float(v) for k, v in mean.items()},
        "empty_draws": float(torch.cat(empty).mean()),
        "s_per_image": seconds / cases,
    }


def markdown(summary: dict[str, Any]) -> str:
    """Return the table; the first rows' keys name convention and number of draws."""
    names = [name for name in summary["rows"][0] if name != "s_per_image"]  # times belong to scripts/benchmark.py
    lines = [
        f"# Velocity, time grid and steps\n\n{summary['model']} `{summary['split']}` split, {summary['cases']} cases.\n"
    ]
    lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in summary["rows"]:
        lines.append(
            "| " + " | ".join(f"{v:.4f}" if isinstance(v := row[name], float) else str(v) for name in names) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", nargs="+", required=True, help="evaluate.yaml of a bundle, then overlays")
    parser.add_argument("--limit", type=int, default=100, help="evenly spaced validation cases")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 10, 50])
    parser.add_argument("--powers", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--about", default="", help="which model this is, for the reader of the table")
    parser.add_argument("--out", type=Path, required=True, help="path of the two files, without suffix")
    arguments, rest = parser.parse_known_args()
    overrides = fire.Fire(lambda **options: options, command=rest) if rest else {}
    network, batches = load(arguments.config_file, arguments.limit, overrides)
    rows = []
    for network.velocity, network.grid_power, network.steps in tqdm(
        list(itertools.product(["markov", "path"], arguments.powers, arguments.steps))
    ):
        setting = {"velocity": network.velocity, "grid_power": network.grid_power, "steps": network.steps}
        rows.append({**setting, **measure(network, batches, arguments.draws)})
    summary = {"model": arguments.about, "split": "val", "cases": arguments.limit, "rows": rows}
    arguments.out.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(markdown(summary))


if __name__ == "__main__":
    main()
