"""Intervals of values over cases, with patients as the independent units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from monai_flowssn.metrics.dice import pool


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
            over the cases of each resample (:func:`pool`).
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
    x = np.asarray(values, dtype=np.float64)
    return _interval([x], _units(x, patients), level, resamples, seed)


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
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(
            f"a and b have shapes {x.shape} and {y.shape}, but must hold the same cases in the same order."
        )
    return _interval([x - y] if x.ndim == 1 else [x, y], _units(x, patients), level, resamples, seed)


def _units(x: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """The number of each case's patient (cases,)."""
    if x.ndim not in (1, 2) or len(x) != len(patients):
        raise ValueError(f"values have shape {x.shape}, but must be one per patient entry ({len(patients)}).")
    return np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]


def _interval(sets: list[np.ndarray], units: np.ndarray, level: float, resamples: int, seed: int) -> Interval:
    """Value and interval of one set of cases, or of the difference of two sets of the same cases."""
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level={level} must lie between 0 and 1, and resamples={resamples} be at least 1.")
    kept = ~np.any([np.isnan(x).reshape(len(x), -1).any(1) for x in sets], axis=0)
    if not kept.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    there, units = np.unique(units[kept], return_inverse=True)
    sums = [_sums(x[kept], units, len(there)) for x in sets]
    value = _difference([each.sum(0) for each in sums], sets[0].ndim)
    if len(there) < 2:
        return Interval(float(value), float("nan"), float("nan"))
    # How often each patient is drawn, (resamples, patients).
    times = np.random.default_rng(seed).multinomial(len(there), np.full(len(there), 1 / len(there)), resamples)
    with np.errstate(invalid="ignore"):
        values = _difference([times @ each for each in sums], sets[0].ndim)
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def _sums(x: np.ndarray, units: np.ndarray, size: int) -> np.ndarray:
    """What the cases of each patient add up to (patients, J + 1), the weight last."""
    parts = np.stack([x, np.ones_like(x)], 1) if x.ndim == 1 else x
    sums = np.zeros((size, parts.shape[1]))
    np.add.at(sums, units, parts)
    return sums


def _difference(sums: list[np.ndarray], ndim: int) -> np.ndarray:
    """Value (...) of sums (..., J + 1) of one set, or the difference of two; a mean keeps its sign, a pooled value has none."""
    values = [x[..., 0] / x[..., -1] if ndim == 1 else pool(torch.from_numpy(x)).numpy() for x in sums]
    return values[0] if len(values) == 1 else values[0] - values[1]
