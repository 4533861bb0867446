"""Intervals of means over cases, with patients as the independent units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Interval(NamedTuple):
    """A mean and its interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike, patients: Sequence[str], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over cases with a percentile bootstrap interval over patients (Efron and Tibshirani, 1993).

    Slices of one patient are not independent, so patients are resampled and bring all their cases with them.

    Args:
        values: one value per case; NaN cases are left out.
        patients: the patient of each case.
        level: the coverage of the interval.
        resamples: how many times to resample.
        seed: same seed, same interval.

    Returns:
        Mean, low and high end; the ends are NaN where fewer than two patients are left.

    Example:
        >>> bootstrap_interval([1.0, 1.0, 1.0], ["a", "b", "b"])
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) != len(patients):
        raise ValueError(f"values have shape {x.shape}, but must be one per patient entry ({len(patients)}).")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level={level} must lie between 0 and 1, and resamples={resamples} be at least 1.")
    kept = ~np.isnan(x)
    if not kept.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    x = x[kept]
    unit, index = np.unique(np.asarray(patients, dtype=str)[kept], return_inverse=True)
    if len(unit) < 2:
        return Interval(float(x.mean()), float("nan"), float("nan"))
    # How often each patient is drawn, (resamples, patients).
    times = np.random.default_rng(seed).multinomial(len(unit), np.full(len(unit), 1 / len(unit)), resamples)
    means = times @ np.bincount(index, x) / (times @ np.bincount(index))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(x.mean()), float(low), float(high))


def paired_difference(
    a: ArrayLike, b: ArrayLike, patients: Sequence[str], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of ``a - b`` over the cases where both are defined, with its bootstrap interval over patients.

    Args:
        a: one value per case of the first method.
        b: one value per case of the second method, same cases in the same order.
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
    return bootstrap_interval(x - y, patients, level=level, resamples=resamples, seed=seed)
