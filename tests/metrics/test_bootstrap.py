import math

import numpy as np
import pytest

from monai_flowssn.metrics import bootstrap_interval, interval_over_seeds, paired_difference


def test_independent_cases_give_the_normal_interval():
    x = np.random.default_rng(0).normal(3, 2, 400)
    mean, low, high = bootstrap_interval(x, [str(i) for i in range(400)])
    half = 1.96 * x.std() / math.sqrt(400)
    assert mean == pytest.approx(x.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert low < mean < high


def test_copies_of_a_case_add_no_information():
    """Ten slices of each patient with the same value must give the interval of one slice each."""
    x = np.random.default_rng(0).normal(0, 1, 50)
    patients = [f"p{i}" for i in range(50)]
    once = bootstrap_interval(x, patients)
    assert bootstrap_interval(x.repeat(10), np.repeat(patients, 10)) == pytest.approx(once)
    naive = bootstrap_interval(x.repeat(10), [str(i) for i in range(500)])
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_the_mean_is_over_cases_and_patients_weigh_by_their_cases():
    mean, low, high = bootstrap_interval([0, 0, 0, 1], ["a", "a", "a", "b"])
    assert mean == 0.25
    assert (low, high) == (0.0, 1.0)
    assert bootstrap_interval([1, 1, 1, 1], ["a", "a", "a", "b"]) == (1.0, 1.0, 1.0)


def test_nan_cases_are_left_out():
    x, patients = [1.0, math.nan, 2.0, 4.0, math.nan], ["a", "a", "b", "c", "d"]
    assert bootstrap_interval(x, patients) == bootstrap_interval([1.0, 2.0, 4.0], ["a", "b", "c"])
    assert all(math.isnan(v) for v in bootstrap_interval([math.nan], ["a"]))


def test_one_patient_has_no_interval():
    mean, low, high = bootstrap_interval([1.0, 3.0], ["a", "a"])
    assert mean == 2.0
    assert math.isnan(low)
    assert math.isnan(high)


def test_seed_and_level():
    x, patients = np.random.default_rng(0).random(30), range(30)
    assert bootstrap_interval(x, patients) == bootstrap_interval(x, patients)
    assert bootstrap_interval(x, patients) != bootstrap_interval(x, patients, seed=1)
    narrow, wide = (bootstrap_interval(x, patients, level=v) for v in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_pairing_removes_what_the_methods_share():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 5, 100)
    a, b = difficulty + 1 + rng.normal(0, 0.1, 100), difficulty
    a[3] = math.nan
    result = paired_difference(a, b, range(100))
    assert result.mean == pytest.approx(np.nanmean(a - b))
    assert 0.9 < result.low < result.high < 1.1


def test_bad_input():
    with pytest.raises(ValueError, match="one per patient entry"):
        bootstrap_interval([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="level=95"):
        bootstrap_interval([1.0], ["a"], level=95)
    with pytest.raises(ValueError, match="same cases"):
        paired_difference([1.0], [1.0, 2.0], ["a"])


def test_pooled_values_pool_in_every_resample():
    """Two patients: the four equally likely resamples have the pooled values 1/4, 1/2 (twice) and 1."""
    parts = [[1.0, 4.0], [1.0, 1.0], [1.0, 1.0]]  # sums and weights: patient a 1 of 4; b 2 of 2
    got = bootstrap_interval(parts, ["a", "b", "b"], level=0.4)
    assert got == (pytest.approx(3 / 6), pytest.approx(0.5), pytest.approx(0.5))
    wide = bootstrap_interval(parts, ["a", "b", "b"])
    assert wide == (pytest.approx(0.5), pytest.approx(0.25), pytest.approx(1.0))


def test_difference_of_pooled_values():
    a, b = [[1.0, 4.0], [2.0, 2.0]], [[2.0, 2.0], [1.0, 4.0]]
    got = paired_difference(a, b, ["p", "q"])
    assert got == (pytest.approx(0.0), pytest.approx(-0.75), pytest.approx(0.75))
    assert paired_difference(a, a, ["p", "q"]) == (0, 0, 0)


def test_trainings_are_resampled_too():
    """Two trainings that are 0 and 1 everywhere: resampled means are 0, 1/2, 1/2 and 1."""
    zero, one = np.zeros(4), np.ones(4)
    got = interval_over_seeds([zero, one], list("abcd"))
    assert got == (0.5, 0, 1)
    assert interval_over_seeds([zero, one], list("abcd"), minus=[one])[:1] == (-0.5,)
    single = interval_over_seeds([zero], list("abcd"), minus=[one])
    assert single == paired_difference(zero, one, list("abcd")) == (-1, -1, -1)
    with pytest.raises(ValueError, match="there is no training"):
        interval_over_seeds([], [])
