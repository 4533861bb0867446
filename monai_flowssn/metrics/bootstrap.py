"""Intervals of values over cases, with patients as the independent units."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from monai_flowssn.metrics.pooling import pool


class Interval(NamedTuple):
    """A value and its interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike, patients: Sequence[str], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over cases with a percentile bootstrap interval over patients (Efron and Tibshirani, 1993).

    Slices of one patient are not independent, so patients are resampled and bring all their cases with them.

    Args:
        values: one value per case; NaN cases are left out. Or the parts of a pooled metric, (cases, J + 1), which are added up
            over the cases of each resample (:func:`~monai_flowssn.metrics.pool`).
        patients: the patient of each case.
        level: the coverage of the interval.
        resamples: how many times to resample.
        seed: same seed, same interval.

    Returns:
        Mean (or pooled value), low and high end; the ends are NaN where fewer than two patients are left.

    Example:
        >>> bootstrap_interval([1.0, 1.0, 1.0], ["a", "b", "b"])
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    return interval_over_seeds([values], patients, level=level, resamples=resamples, seed=seed)


def paired_difference(
    a: ArrayLike, b: ArrayLike, patients: Sequence[str], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of ``a - b`` over the cases where both are defined, with its bootstrap interval over patients.

    Args:
        a: one value per case of the first method, or the parts of a pooled metric (cases, J + 1).
        b: the same of the second method, same cases in the same order.
        patients: the patient of each case.
        level: the coverage of the interval.
        resamples: how many times to resample.
        seed: same seed, same interval.

    Returns:
        Mean, low and high end. An interval that leaves out 0 separates these two trained models on such patients; how much
        trainings of one method differ is not in it.

    Example:
        >>> paired_difference([0.5, 0.25, 0.5], [0.25, 0.0, 0.25], ["a", "b", "c"])
        Interval(mean=0.25, low=0.25, high=0.25)
    """
    return interval_over_seeds([a], patients, minus=[b], level=level, resamples=resamples, seed=seed)


def interval_over_seeds(
    trainings: Sequence[ArrayLike],
    patients: Sequence[str],
    *,
    minus: Sequence[ArrayLike] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Value of a method that was trained several times, or its difference to another, with patients and trainings resampled.

    Args:
        trainings: for each training the value per case, or the parts of a pooled metric (cases, J + 1).
        patients: the patient of each case.
        minus: the same of another method, same cases in the same order; values are paired by case, cases where any is NaN are
            left out.
        level: the coverage of the interval.
        resamples: how many times to resample.
        seed: same seed, same interval.

    Returns:
        The mean over the trainings, low and high end. With few trainings the ends are rough, with one they say nothing of how
        trainings differ.

    Example:
        >>> interval_over_seeds([[1.0, 1.0], [0.0, 0.0]], ["a", "b"])
        Interval(mean=0.5, low=0.0, high=1.0)
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level={level} must lie between 0 and 1, and resamples={resamples} be at least 1.")
    groups = [[np.asarray(x, dtype=np.float64) for x in group] for group in (trainings, minus) if group is not None]
    _check(groups, len(patients))
    defined = [np.asarray(~np.isnan(x).reshape(len(x), -1).any(1)) for group in groups for x in group]
    if minus is not None:
        defined = [np.all(defined, axis=0)] * len(defined)
    names, units = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    there = min(len(np.unique(units[kept])) for kept in defined)
    if there == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    kept = iter(defined)
    sums = [[_sums(x, next(kept), units, len(names)) for x in group] for group in groups]
    ndim = groups[0][0].ndim
    value = _subtract([np.mean([_value(each.sum(0), ndim) for each in group]) for group in sums])
    if there < 2:
        return Interval(float(value), float("nan"), float("nan"))
    times = _times(len(names), resamples, seed)
    rng = np.random.default_rng([seed, 1])
    drawn = [_over_trainings([_value(times @ each, ndim) for each in group], rng) for group in sums]
    low, high = np.nanquantile(_subtract(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def _check(groups: list[list[np.ndarray]], cases: int) -> None:
    if not all(groups):
        raise ValueError("there is no training, but a value needs at least one: pass its values per case.")
    first = groups[0][0]
    for x in (x for group in groups for x in group):
        if x.shape != first.shape:
            raise ValueError(
                f"a and b have shapes {first.shape} and {x.shape}, but must hold the same cases in the same order."
            )
        if np.isinf(x).any():
            raise ValueError("values hold infinity, which has no mean; give NaN for cases that are to be left out.")
    if first.ndim not in (1, 2) or len(first) != cases or not cases:
        raise ValueError(f"values have shape {first.shape}, but must be one per patient entry ({cases}), at least one.")


@lru_cache(maxsize=2)
def _times(patients: int, resamples: int, seed: int) -> np.ndarray:
    """How often each patient is drawn, (resamples, patients): the same for all metrics of a report."""
    counts = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), resamples)
    return counts.astype(np.float64)  # whose products are fast


def _sums(x: np.ndarray, kept: np.ndarray, units: np.ndarray, size: int) -> np.ndarray:
    """What the cases of each patient add up to (patients, J + 1), the weight last."""
    parts = np.stack([x, np.ones_like(x)], 1) if x.ndim == 1 else x
    sums = np.zeros((size, parts.shape[1]))
    np.add.at(sums, units[kept], parts[kept])
    return sums


def _value(sums: np.ndarray, ndim: int) -> np.ndarray:
    """Value (...) of sums (..., J + 1): a mean, which keeps its sign, or a pooled value; NaN where no case was drawn."""
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1] if ndim == 1 else pool(torch.from_numpy(sums)).numpy()


def _over_trainings(values: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Mean (resamples,) over as many trainings, drawn with replacement for each resample, as there are."""
    table = np.stack(values, 1)  # (resamples, trainings)
    if table.shape[1] == 1:
        return table[:, 0]
    return np.take_along_axis(table, rng.integers(table.shape[1], size=table.shape), 1).mean(1)


def _subtract(values: list[np.ndarray]) -> np.ndarray:
    return values[0] if len(values) == 1 else values[0] - values[1]
