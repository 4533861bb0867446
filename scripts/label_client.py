"""Ask a MONAI Label server for a study and draw its answer: segmentation, uncertainty and some draws over the image.

    python scripts/label_client.py http://127.0.0.1:8000 my_segmentation STUDY answer.png --draws 16

STUDY is the id of an image in the server's data store. Of a volume the slice with the largest entropy is shown. An example of a
client in sixty lines; viewers such as 3D Slicer do the same requests.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import matplotlib.pyplot as plt
import numpy as np
from monai.transforms import LoadImage


def ask(address: str, params: dict[str, Any] | None = None) -> Any:
    """Return what the server answers: JSON, or the pixels of a file, (x, y) or (x, y, z)."""
    body = None if params is None else urlencode({"params": json.dumps(params)}).encode()
    with urlopen(Request(address, data=body)) as answer:
        if answer.headers.get_content_type() == "application/json":
            return json.load(answer)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(answer.headers.get_filename() or "answer").name)
            path.write_bytes(answer.read())
            return np.squeeze(LoadImage(image_only=True)(path).numpy())


def overlay(axis: plt.Axes, image: np.ndarray, title: str, over: np.ndarray | None = None, **style: Any) -> None:
    """Show the image, and something over it."""
    axis.imshow(image.T, cmap="gray")
    if over is not None:
        axis.imshow(over.T, alpha=0.7, **style)
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def mask(labels: np.ndarray) -> np.ndarray:
    """Hide the background."""
    return np.ma.masked_equal(labels, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("study")
    parser.add_argument("figure", type=Path)
    parser.add_argument("--draws", type=int, default=16)
    arguments = parser.parse_args()
    study = quote(arguments.study)
    infer = f"{arguments.address}/infer/{quote(arguments.model)}?image={study}&output="
    image = ask(f"{arguments.address}/datastore/image?image={study}")
    summary = ask(f"{infer}json", {"draws": arguments.draws, "output": "entropy"})
    top = 255 if "scale" in summary else np.log(len(summary["classes"]) + 1)  # pictures hold the maps in 8 bits
    maps = {
        name: ask(f"{infer}image", {"draws": arguments.draws, "output": name})
        for name in ("segmentation", "entropy", "mutual_information")
    }
    chosen = [
        ask(f"{infer}image", {"draws": arguments.draws, "output": "draw", "draw": i})
        for i in range(1, min(4, arguments.draws) + 1)
    ]
    if image.ndim == 3:
        z = int(maps["entropy"].sum(axis=(0, 1)).argmax())
        image, chosen = image[..., z], [draw[..., z] for draw in chosen]
        maps = {name: values[..., z] for name, values in maps.items()}

    figure, axes = plt.subplots(2, 4, figsize=(11, 6), layout="constrained")
    overlay(axes[0, 0], image, f"{arguments.study}: image")
    sizes = summary["classes"]["1"]
    low, high = sizes["interval_95"]
    overlay(
        axes[0, 1],
        image,
        f"segmentation, {sizes['segmentation']:.0f} {summary['unit']}",
        mask(maps["segmentation"]),
        cmap="autumn",
    )
    for axis, name in zip(axes[0, 2:], ("entropy", "mutual_information")):
        mean = summary["uncertainty"][name]
        title = f"{name.replace('_', ' ')}, " + ("no foreground" if mean is None else f"mean {mean:.2f} nats")
        overlay(axis, image, title, maps[name], cmap="viridis", vmin=0, vmax=top)
    for i, (axis, draw) in enumerate(zip(axes[1], chosen)):
        overlay(axis, image, f"draw {i + 1}, {sizes['per_draw'][i]:.0f} {summary['unit']}", mask(draw), cmap="autumn")
    figure.suptitle(
        f"{arguments.model}: {arguments.draws} draws, mean {sizes['mean']:.0f} {summary['unit']}, "
        f"95 % of them in [{low:.0f}, {high:.0f}]",
        fontsize=10,
    )
    figure.savefig(arguments.figure, dpi=120)


if __name__ == "__main__":
    main()
