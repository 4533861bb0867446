import numpy as np
import pytest
import torch

from monai_flowssn.metrics import compute_collective_insight

PARTS = ("sensitivity", "dice_max", "agreement")


def parts_by_numpy(draws, raters, c):
    s, y = (np.stack([np.asarray(m) == c for m in maps]).astype(float) for maps in (draws, raters))
    union_s, union_y = s.max(0), y.max(0)
    sensitivity = (union_s * union_y).sum() / union_y.sum() if union_y.any() else 1.0

    def dice(a, b):
        return 2 * (a * b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0

    def extremes(masks):
        variances = [np.var(a - b) for a in masks for b in masks]
        return min(variances), max(variances)

    (low_y, high_y), (low_s, high_s) = extremes(y), extremes(s)
    agreement = 1 - (abs(low_y - low_s) + abs(high_y - high_s)) / 2
    return sensitivity, np.mean([max(dice(a, b) for a in s) for b in y]), agreement


def test_agrees_with_numpy(case, reference):
    draws, raters, k = case
    found = np.array(
        [[parts_by_numpy(d, reference.there(y), c) for c in range(1, k)] for d, y in zip(draws, raters, strict=True)]
    )  # (B, classes, 3)
    for part, expected in zip(PARTS, found.mean(1).T, strict=True):
        got = compute_collective_insight(draws, raters, num_classes=k, part=part)
        assert got.tolist() == pytest.approx(expected, abs=1e-5), part
    insight = (3 * found.prod(-1) / found.sum(-1)).mean(1)
    assert compute_collective_insight(draws, raters, num_classes=k).tolist() == pytest.approx(insight, abs=1e-5)


def test_equal_sets_have_full_insight():
    masks = torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]]])
    for part in ("ci", *PARTS):
        assert compute_collective_insight(masks, masks, part=part).item() == pytest.approx(1), part


def test_empty_masks():
    empty, full = torch.zeros(1, 2, 4, dtype=torch.uint8), torch.ones(1, 2, 4, dtype=torch.uint8)
    assert compute_collective_insight(empty, empty).item() == 1
    assert compute_collective_insight(empty, full).item() == 0
    assert compute_collective_insight(full, empty, part="sensitivity").item() == 1
    assert compute_collective_insight(full, empty, part="dice_max").item() == 0


def test_a_missing_rater_is_not_an_empty_one():
    half = torch.tensor([[[1, 1, 0, 0]]])
    raters = torch.cat([half, torch.full_like(half, -1)], 1)
    assert compute_collective_insight(half, raters).item() == 1


def test_bad_part():
    with pytest.raises(ValueError, match="part is 'all'"):
        compute_collective_insight(torch.ones(1, 1, 2), torch.ones(1, 1, 2), part="all")
