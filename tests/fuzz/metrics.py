"""Metric functions: values against loops in float64, and what is no draw, mask, probability or weight."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import torch
from fuzz.judge import Input
from fuzz.pictures import Rng

from monai_flowssn.metrics import (
    bootstrap_interval,
    compute_crps,
    compute_dice,
    compute_diversity,
    compute_ece,
    compute_existence,
    compute_ged,
    compute_hm_iou,
    compute_nll,
    compute_surface,
    compute_thresholded,
    paired_difference,
    pairwise_iou,
)

SETS = (compute_ged, compute_hm_iou, compute_dice, compute_crps, compute_existence)
TYPES = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64)


def stacks(rng: Rng, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws (B, N, *S) and raters (B, R, *S), the last of whom may be missing."""
    size = (int(rng.integers(1, 3)), *rng.integers(2, 5, int(rng.integers(2, 4))))
    n, r = rng.integers(2, 5, 2)
    draws = torch.from_numpy(rng.integers(0, classes, (size[0], n, *size[1:])))
    raters = torch.from_numpy(rng.integers(0, classes, (size[0], r, *size[1:])))
    if rng.random() < 0.3:
        raters[:, -1] = -1
    return draws, raters


def _iou(a: np.ndarray, b: np.ndarray, classes: int, empty: str) -> float:
    values = []
    for c in range(1, classes):
        union = ((a == c) | (b == c)).sum()
        values.append(((a == c) & (b == c)).sum() / union if union else {"one": 1.0, "zero": 0.0}[empty])
    return float(np.mean(values))


def _ged(draws: np.ndarray, raters: np.ndarray, classes: int, estimator: str, empty: str) -> float:
    there = [each for each in raters if (each >= 0).all()]
    apart = lambda x, y: 1 - _iou(x, y, classes, empty)  # noqa: E731
    cross = np.mean([apart(x, y) for x, y in product(draws, there)])
    drawn = np.mean([apart(x, y) for x, y in product(draws, draws)]) if estimator == "v" else np.mean(
        [apart(x, y) for (i, x), (j, y) in product(enumerate(draws), repeat=2) if i != j]
    )  # fmt: skip
    return float(2 * cross - drawn - np.mean([apart(x, y) for x, y in product(there, there)]))


def ged(rng: Rng, folder: Path) -> Input:
    classes = int(rng.integers(2, 5))
    draws, raters = stacks(rng, classes)
    options = {"estimator": str(rng.choice(["v", "u"])), "empty": str(rng.choice(["one", "zero"]))}
    wanted = [_ged(x, y, classes, **options) for x, y in zip(draws.numpy(), raters.numpy())]
    kind = TYPES[rng.integers(len(TYPES))] if (raters >= 0).all() else torch.int16
    typed = draws.to(kind), raters.to(kind)
    return Input(
        lambda: compute_ged(*typed, num_classes=classes, **options),
        lambda found: np.allclose(found, wanted, atol=1e-5),
    )


def overlap(rng: Rng, folder: Path) -> Input:
    classes, empty = int(rng.integers(2, 4)), str(rng.choice(["one", "zero"]))
    draws, raters = stacks(rng, classes)

    def right(found: torch.Tensor) -> bool:
        for b, i, j in product(*map(range, found.shape[:3])):
            wanted = _iou(draws[b, i].numpy(), raters[b, j].numpy(), classes, empty)
            missing = bool((raters[b, j] < 0).all())
            value = float(found[b, i, j].mean())
            if not (math.isnan(value) if missing else np.isclose(value, wanted)):
                return False
        return True

    return Input(lambda: pairwise_iou(draws, raters, num_classes=classes, empty=empty), right)


def likelihood(rng: Rng, folder: Path) -> Input:
    """Log-sum-exp over draws of the product over pixels, a mean over raters."""
    draws, raters = stacks(rng)
    soft = torch.rand(*draws.shape[:2], 2, *draws.shape[2:], dtype=torch.float64) * 0.9 + 0.05
    soft = (soft / soft.sum(2, keepdim=True)).float()

    def right(found: torch.Tensor) -> bool:
        for b in range(len(soft)):
            there = [each for each in raters[b] if (each >= 0).all()]
            of = [torch.stack([p.double().gather(0, y[None]).log().sum() for p in soft[b]]).logsumexp(0) for y in there]
            wanted = -float(torch.stack(of).mean()) + math.log(soft.shape[1])
            if not np.isclose(float(found[b]), wanted, rtol=1e-4):
                return False
        return True

    return Input(lambda: compute_nll(soft, raters), right)


def _soft(rng: Rng) -> tuple[torch.Tensor, torch.Tensor]:
    draws, raters = stacks(rng)
    return torch.stack([1.0 - draws, draws.float()], 2), raters


def no_probability(rng: Rng, folder: Path) -> Input:
    pred, raters = _soft(rng)
    change = rng.integers(6)
    place = (0, 0, 0, *[0] * (pred.ndim - 3))
    if change < 3:
        pred[place] = float(rng.choice([np.nan, np.inf, -np.inf]))
    elif change == 3:
        pred = pred * float(rng.choice([0.5, 2, 0.9]))
    elif change == 4:
        pred = pred + float(rng.choice([-1, 0.5]))
    else:
        pred = torch.randn_like(pred) * 3  # logits
    call = [
        lambda: compute_nll(pred, raters),
        lambda: compute_ece(pred, raters),
        lambda: compute_thresholded(pred[:, 0], raters),
    ]
    return Input(call[rng.integers(3)], None)


def no_label(rng: Rng, folder: Path) -> Input:
    draws, raters = stacks(rng)
    bad = [draws + 1, draws * 255, draws.float() + 0.5, draws - 2, draws.float() * np.nan, torch.zeros_like(draws) - 1][
        rng.integers(6)
    ]
    if not bool(draws.any()):
        bad = draws + 2
    metric = SETS[rng.integers(len(SETS))]
    pair = (bad, raters) if rng.random() < 0.5 else (draws, bad)
    return Input(lambda: metric(*pair), None)


def mismatched(rng: Rng, folder: Path) -> Input:
    draws, raters = stacks(rng)
    metric = SETS[rng.integers(len(SETS))]
    change = [
        (draws, raters[..., :-1]), (draws[:0], raters), (draws, raters[:, :0]), (draws[:, :0], raters), (draws[0], raters),
        (draws.repeat(2, *[1] * (draws.ndim - 1)), raters), (draws[..., None], raters), (draws.flatten(), raters.flatten()),
    ][rng.integers(8)]  # fmt: skip
    return Input(lambda: metric(*change), None)


def classes_apart(rng: Rng, folder: Path) -> Input:
    draws, raters = stacks(rng)
    classes = [0, 1, -1, 10**9, 2**40, 2.5, "2", None, True][rng.integers(9)]
    metric = [compute_ged, compute_hm_iou, compute_dice, compute_existence, pairwise_iou][rng.integers(5)]
    return Input(lambda: metric(draws, raters, num_classes=classes), None)


def weights_apart(rng: Rng, folder: Path) -> Input:
    draws, raters = stacks(rng)
    even = torch.ones(draws.shape[:2])
    bad = [even * 0, -even, even[:, :-1], even * np.nan, even * np.inf, even[0], even[..., None]][rng.integers(7)]
    metric = [compute_ged, compute_hm_iou, compute_diversity][rng.integers(3)]
    arguments = (draws,) if metric is compute_diversity else (draws, raters)
    return Input(lambda: metric(*arguments, weights=bad), None, ("weights",))


def word_apart(rng: Rng, folder: Path) -> Input:
    draws, raters = stacks(rng)
    metric, name = [
        (compute_ged, "estimator"), (compute_ged, "empty"), (compute_hm_iou, "matching"), (compute_dice, "kind"),
        (compute_surface, "score"),
        (compute_existence, "kind"), (pairwise_iou, "empty"),
    ][rng.integers(7)]  # fmt: skip
    word = ["V", "onee", "", None, 1, "bestt"][rng.integers(6)]
    return Input(lambda: metric(draws, raters, **{name: word}), None, (name,))


def one_draw(rng: Rng, folder: Path) -> Input:
    """The u-statistic of one draw has no pair: NaN, as documented."""
    draws, raters = stacks(rng)
    return Input(lambda: compute_ged(draws[:, :1], raters, estimator="u"), lambda found: bool(found.isnan().all()))


def interval(rng: Rng, folder: Path) -> Input:
    values, patients = rng.normal(size=12), [f"p{i // 2}" for i in range(12)]
    return Input(
        lambda: bootstrap_interval(values, patients, resamples=50),
        lambda found: bool(np.isclose(found.mean, values.mean())),
    )


def no_interval(rng: Rng, folder: Path) -> Input:
    values, patients = rng.normal(size=12), [f"p{i // 2}" for i in range(12)]
    change = [
        lambda: bootstrap_interval(values[:-1], patients), lambda: bootstrap_interval(values, patients[:-1]),
        lambda: bootstrap_interval([], []), lambda: paired_difference(values, values[:-1], patients),
        lambda: bootstrap_interval(values, patients, resamples=0), lambda: bootstrap_interval(values, patients, level=95),
        lambda: bootstrap_interval(np.where(values > 0, values, np.inf), patients),
    ][rng.integers(7)]  # fmt: skip
    return Input(change, None)


KINDS = {
    f"metric: {make.__name__}": make
    for make in (
        ged, overlap, likelihood, no_probability, no_label, mismatched, classes_apart, weights_apart, word_apart, one_draw,
        interval,
        no_interval,
    )
}  # fmt: skip
