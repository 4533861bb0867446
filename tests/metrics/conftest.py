"""Independent references: plain loops in float64, written from the definitions and not from the library."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch


def iou(a, b, label, empty):
    """One number from two label maps."""
    a, b = np.asarray(a) == label, np.asarray(b) == label
    if not (a | b).any():
        return {"one": 1.0, "zero": 0.0, "drop": math.nan}[empty]
    return float((a & b).sum()) / float((a | b).sum())


def class_mean_iou(a, b, classes, empty):
    values = [v for v in (iou(a, b, c, empty) for c in classes) if not math.isnan(v)]
    return sum(values) / len(values) if values else math.nan


def mean(values, default=math.nan):
    values = [v for v in values if not math.isnan(v)]
    return sum(values) / len(values) if values else default


def there(raters):
    return [y for y in raters if (np.asarray(y) >= 0).all()]


def ged(draws, raters, classes, estimator, empty):
    """One case."""
    raters = there(raters)

    def distance(a, b):
        return 1 - class_mean_iou(a, b, classes, empty)

    cross = mean([distance(s, y) for s in draws for y in raters])
    pairs = itertools.product(draws, draws) if estimator == "v" else itertools.permutations(draws, 2)
    within = mean([distance(s, t) for s, t in pairs], default=0.0)
    return 2 * cross - within - mean([distance(y, z) for y in raters for z in raters], default=0.0)


def hm_iou_by_brute_force(table):
    """Best matching after repetition to the least common multiple, trying every permutation."""
    n, r = table.shape
    size = math.lcm(n, r)
    big = table.repeat(size // n, 0).repeat(size // r, 1)
    return max(big[range(size), list(p)].mean() for p in itertools.permutations(range(size)))


@pytest.fixture(scope="session")
def reference():
    return SimpleNamespace(
        iou=iou, class_mean_iou=class_mean_iou, mean=mean, there=there, ged=ged, brute_hm_iou=hm_iou_by_brute_force
    )


@pytest.fixture(params=["2d", "3d", "four classes"])
def case(request):
    """Draws, raters (one of them missing, one empty, one draw empty) and K."""
    shape, k = {"2d": ((7, 5), 2), "3d": ((4, 3, 5), 2), "four classes": ((6, 6), 4)}[request.param]
    generator = torch.Generator().manual_seed(3)
    draws = torch.randint(0, k, (2, 5, *shape), generator=generator)
    raters = torch.randint(0, k, (2, 3, *shape), generator=generator)
    draws[:, 1] = 0
    raters[0, 0] = 0
    raters[1, 2] = -1
    return draws, raters, k
