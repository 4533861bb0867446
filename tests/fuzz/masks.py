"""Masks in memory: values, types, and the rule of -1, as transforms and losses meet them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.judge import Input, read
from fuzz.pictures import Rng
from monai.data import MetaTensor

from monai_flowssn.segmenters import DeterministicUNet
from monai_flowssn.transforms.summary import pixel_size

TYPES = (torch.uint8, torch.uint16, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64)


def masks(rng: Rng, values: Any = (0, 1), raters: int = 3) -> torch.Tensor:
    """(R, x, y) of some values, all of which occur."""
    array = rng.choice(values, (raters, *rng.integers(3, 9, 2)))
    array.flat[: len(values)] = values
    return torch.from_numpy(array)


def item(label: torch.Tensor, image: torch.Tensor | None = None) -> dict[str, Any]:
    image = torch.zeros(1, *label.shape[1:]) if image is None else image
    return {"image": MetaTensor(image), "label": MetaTensor(label), "case": "c7", "patient": "p"}


def holds(ids: torch.Tensor) -> Any:
    return lambda found: bool(torch.equal(found["label"].as_tensor().long(), ids.long()))


def plain(rng: Rng, folder: Path) -> Input:
    ids, dtype = masks(rng, range(4)), TYPES[rng.integers(len(TYPES))]
    return Input(lambda: read(item(ids.to(dtype)), num_classes=4), holds(ids))


def _values(rng: Rng) -> list[int]:
    return sorted(rng.choice(256, int(rng.integers(2, 6)), replace=False).tolist())


def mapped(rng: Rng, folder: Path) -> Input:
    values = rng.permutation(_values(rng)).tolist()
    ids = masks(rng, range(len(values)))
    label = torch.tensor(values)[ids].to(rng.choice([torch.int16, torch.float32]))
    return Input(lambda: read(item(label), num_classes=len(values), class_values=values), holds(ids))


def stray(rng: Rng, folder: Path) -> Input:
    values = _values(rng)
    others = [v for v in (*range(-3, 8), *range(250, 260), 0.5) if v not in values and v != -1]
    label = torch.tensor(values)[masks(rng, range(len(values)))].float()
    label[0, 0, 0] = float(rng.choice(others))
    return Input(lambda: read(item(label), num_classes=len(values), class_values=values), None, ("c7",))


def miscounted(rng: Rng, folder: Path) -> Input:
    values = _values(rng)
    label = torch.tensor(values)[masks(rng, range(len(values)))]
    classes = len(values) + int(rng.choice([-1, 1, 2]))
    return Input(lambda: read(item(label), num_classes=max(2, classes) + (classes < 2), class_values=values), None)


def too_high(rng: Rng, folder: Path) -> Input:
    label, dtype = masks(rng), TYPES[rng.integers(len(TYPES))]
    top = torch.iinfo(dtype).max if not dtype.is_floating_point else 2**24
    label = label.to(dtype)
    label[-1, -1, -1] = int(rng.choice([value for value in (2, 3, 127, 255, 256, 65536, 2**32) if value <= top]))
    return Input(lambda: read(item(label)), None, ("c7",))


def negative(rng: Rng, folder: Path) -> Input:
    label = masks(rng).long()
    label[1, 0, 0] = int(rng.choice([-1, -2, -128, -(2**40)]))  # -1 in places, or no class at all
    return Input(lambda: read(item(label)), None, ("c7",))


def missing(rng: Rng, folder: Path) -> Input:
    label = masks(rng)
    label[rng.integers(3)] = -1
    return Input(lambda: read(item(label)), holds(label))


def all_missing(rng: Rng, folder: Path) -> Input:
    label = torch.full_like(masks(rng), -1)[: int(rng.integers(0, 3))]
    return Input(lambda: read(item(label, torch.zeros(1, *label.shape[1:]))), None, ("c7",))


def soft(rng: Rng, folder: Path) -> Input:
    label = masks(rng).float()
    label[0, 1, 1] = float(rng.choice([0.5, 1e-3, np.nan, np.inf, 0.999]))
    return Input(lambda: read(item(label)), None, ("c7",))


def misplaced(rng: Rng, folder: Path) -> Input:
    """Of a loader of somebody's own: another size, or the same one elsewhere."""
    case = item(masks(rng))
    if rng.random() < 0.5:
        case["label"] = case["label"][..., :-1]
    else:
        case["label"].affine = torch.diag(torch.tensor([-1.0, 1, 1, 1])).double()
    return Input(lambda: read(case), None, ("c7",))


def own_slice(rng: Rng, folder: Path) -> Input:
    """An area of a loader of somebody's own, whose affine has a thickness."""
    spacing = rng.uniform([0.3, 0.3, 2], [1.5, 1.5, 6])
    case = item(masks(rng))
    case["image"].affine = case["label"].affine = torch.diag(torch.tensor([*spacing, 1.0]))
    return Input(
        lambda: pixel_size(read(case)["label"]),
        lambda found: bool(np.isclose(found[0], spacing[0] * spacing[1])) and found[1] == "mm^2",
    )


def _loss(label: torch.Tensor, image: torch.Tensor) -> float:
    torch.manual_seed(0)
    return float(DeterministicUNet(torch.nn.Conv2d(1, 2, 1)).loss(image, label)["loss"])


def loss_plain(rng: Rng, folder: Path) -> Input:
    label = masks(rng)[None]
    image = torch.from_numpy(rng.normal(size=(1, 1, *label.shape[2:]))).float()
    twin, dtype = label.clone(), TYPES[rng.integers(len(TYPES))]
    return Input(lambda: _loss(label.to(dtype), image), lambda found: found == _loss(twin, image))


def loss_misread(rng: Rng, folder: Path) -> Input:
    """Soft masks are cut, high ids end in an index error, a batch of one broadcasts."""
    label = masks(rng)[None].repeat(2, 1, 1, 1)
    image = torch.zeros(2, 1, *label.shape[2:])
    change = [
        (label + 0.5, image), (label.float() * 0.9, image), (label + 1, image), (label * 2, image), (label[:1], image),
        (label[:, 0], image), (label[..., :1], image), (label, image[:1]), (label - 2, image),
    ][rng.integers(9)]  # fmt: skip
    return Input(lambda: _loss(*change), None, ("masks",))


KINDS = {
    f"mask: {make.__name__}": make
    for make in (
        plain, mapped, stray, miscounted, too_high, negative, missing, all_missing, soft, misplaced, own_slice, loss_plain,
        loss_misread,
    )
}  # fmt: skip
