"""Draw docs/draws.png, the picture at the top of the README, from shipped weights.

    python scripts/readme_figure.py --dataset_dir data/lidc.hdf5 [--bundle ssn] [--cases 1 2 3]

Real slices of LIDC-IDRI (CC BY 3.0), of patients that no training saw.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from monai.transforms import CenterSpatialCrop

from monai_flowssn.data import lidc
from monai_flowssn.shipped import load_shipped

DOCS = Path(__file__).resolve().parent.parent / "docs"
COLOURS = ("#ffb000", "#fe6100", "#dc267f", "#648fff")
SHOWN, DRAWS = 6, 100


def outline(axis: Any, mask: torch.Tensor, colour: str) -> None:
    """Draw the edge of a mask (H, W); an empty one has none."""
    if mask.any():
        axis.contour(mask.float().T.numpy(), levels=[0.5], colors=[colour], linewidths=1.4)


def show(axis: Any, image: torch.Tensor) -> None:
    """Show an image (H, W) whose first axis is x."""
    axis.imshow(image.T.numpy(), cmap="gray", vmin=-1, vmax=1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--bundle", default="ssn")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--cases", type=int, nargs="+", default=[20, 121, 240])
    parser.add_argument("--out", type=Path, default=DOCS / "draws.png")
    arguments = parser.parse_args()
    model, crop = load_shipped(arguments.bundle, arguments.weights), CenterSpatialCrop([64, 64])
    cases = lidc(arguments.dataset_dir, "test", limit=400)
    rows, columns = len(arguments.cases), 2 + SHOWN + 1
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 1.25, rows * 1.25 + 0.25), squeeze=False)
    torch.manual_seed(0)
    for line, number in zip(axes, arguments.cases):
        case = cases[number]
        image = crop(case["image"]).as_tensor().float() / 127.5 - 1  # type: ignore[union-attr]
        draws = model.sample(image[None], DRAWS)[0, :, 1]  # (N, H, W)
        show(line[0], image[0])
        show(line[1], image[0])
        for mask, colour in zip(crop(case["label"]).as_tensor(), COLOURS):  # type: ignore[union-attr]
            outline(line[1], mask, colour)
        for axis, draw in zip(line[2:-1], draws):
            show(axis, image[0])
            outline(axis, draw > 0.5, "#22d3ee")
        line[-1].imshow(draws.std(dim=0).T.numpy(), cmap="magma", vmin=0, vmax=0.5)
    titles = ["image", "four radiologists", *(f"draw {i + 1}" for i in range(SHOWN)), f"spread of {DRAWS}"]
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=7.5)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.91, wspace=0.03, hspace=0.03)
    figure.savefig(arguments.out, dpi=150)


if __name__ == "__main__":
    main()
