"""Masks on which authors' functions and ours were run: twenty cases with empty masks and missing raters, K = 2 or 3."""

import numpy as np

CASES, DRAWS, RATERS, SIZE = 20, 8, 4, 16


def seeded_cases(num_classes):
    """Return soft draws (N, K, H, W) float64, draws (N, H, W), weights (N,) and annotating raters (R, H, W) of each case."""
    random = np.random.RandomState(num_classes)  # whose numbers NumPy promises never to change
    return [_case(random, num_classes) for _ in range(CASES)]


def _case(random, num_classes):
    centre, radius = random.uniform(5, 10, 2), random.uniform(2, 5)
    empty = random.choice([0.0, 0.2, 0.5, 0.9])
    soft = np.stack([_soft(random, centre, radius, empty, num_classes) for _ in range(DRAWS)])
    raters = np.stack([_soft(random, centre, radius, empty, num_classes).argmax(0) for _ in range(RATERS)])
    there = random.permutation(RATERS)[: random.choice([2, 3, RATERS, RATERS])]
    return soft, soft.argmax(1), random.dirichlet(np.ones(DRAWS)), raters[np.sort(there)]


def _soft(random, centre, radius, empty, num_classes):
    """Probabilities (K, H, W) of rings around a centre, or of almost nothing."""
    where = np.hypot(*(np.indices((SIZE, SIZE)) - (centre + random.normal(0, 0.7, 2))[:, None, None]))
    size = radius * random.uniform(0.7, 1.3)
    shrink = 40.0 if random.uniform() < empty else 0.0
    logits = [np.zeros((SIZE, SIZE))]
    for c in range(1, num_classes):
        lost = 40.0 if random.uniform() < 0.2 else 0.0  # a class of several may be missing
        logits.append(2 * (size * (num_classes - c) / (num_classes - 1) - where) + c - 1 - shrink - lost)
    odds = np.exp(np.stack(logits).clip(-8, 8) + random.normal(0, 0.05, (num_classes, SIZE, SIZE)))
    return odds / odds.sum(0)
