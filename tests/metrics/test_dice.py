import math

import pytest
import torch

from monai_flowssn.metrics import compute_dice

EMPTY, FULL = [0, 0, 0, 0], [1, 1, 1, 1]


def dice(a, b, label):
    a, b = a == label, b == label
    total = (a.sum() + b.sum()).item()
    return 2 * (a & b).sum().item() / total if total else math.nan


def class_mean_dice(reference, a, b, k, empty):
    values = [dice(a, b, c) for c in range(1, k)]
    return reference.mean([1.0 if math.isnan(v) and empty == "one" else v for v in values])


@pytest.mark.parametrize("kind", ["per_rater", "expected", "single", "majority"])
def test_agrees_with_a_loop(case, reference, kind):
    draws, raters, k = case
    expected = []
    for d, r in zip(draws, raters, strict=True):
        present = reference.there(r)
        mode = torch.mode(d, 0).values  # the lowest id on a tie
        votes = torch.stack([sum((y == c).long() for y in present) for c in range(k)])
        majority = torch.where(votes.max(0).values * 2 > len(present), votes.argmax(0), 0)
        pairs = {
            "majority": [(mode, majority)],
            "per_rater": [(mode, y) for y in present],
            "expected": [(s, y) for s in d for y in present],
            "single": [(mode, r[1])],
        }[kind]
        empty = "drop" if kind == "per_rater" else "one"
        expected.append(reference.mean([class_mean_dice(reference, a, b, k, empty) for a, b in pairs]))
    got = compute_dice(draws, raters, num_classes=k, kind=kind, rater=1)
    torch.testing.assert_close(got, torch.tensor(expected), atol=1e-6, rtol=0)


def test_majority_by_hand():
    draws = torch.tensor([[[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]])  # mode 1 1 0 0
    raters = torch.tensor([[[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1]]])  # 4, 2 (tie), 2 (tie), 3
    assert compute_dice(draws, raters).item() == pytest.approx(2 * 1 / (2 + 2))


def test_three_classes_without_a_strict_majority_are_background():
    raters = torch.tensor([[[1, 2], [2, 2], [0, 1]]])
    # Majority: background, 2. Class 1 is empty on both sides and counts 1.
    assert compute_dice(torch.tensor([[[0, 2]]]), raters, num_classes=3).item() == 1.0


def test_the_mean_probability_decides_where_given():
    draws = torch.tensor([[[1], [0], [0]]])  # probabilities 0.9, 0.45, 0.45: mode 0, mean 0.6
    mean = torch.tensor([[[0.4], [0.6]]])
    raters = torch.tensor([[[1]]])
    assert compute_dice(draws, raters).item() == 0.0
    assert compute_dice(draws, raters, mean=mean).item() == 1.0


@pytest.mark.parametrize("kind", ["majority", "per_rater", "expected", "single"])
@pytest.mark.parametrize(
    ("draw", "rater", "one", "drop", "zero"),
    [(EMPTY, EMPTY, 1.0, math.nan, 0.0), (EMPTY, FULL, 0.0, 0.0, 0.0), (FULL, FULL, 1.0, 1.0, 1.0)],
)
def test_empty_masks(kind, draw, rater, one, drop, zero):
    s, y = torch.tensor([[draw]]), torch.tensor([[rater]])
    got = torch.cat([compute_dice(s, y, kind=kind, empty=e) for e in ("one", "drop", "zero")])
    torch.testing.assert_close(got, torch.tensor([one, drop, zero]), equal_nan=True)


def test_per_rater_drops_empty_pairs_by_default():
    s, y = torch.tensor([[EMPTY]]), torch.tensor([[EMPTY, FULL]])
    assert compute_dice(s, y, kind="per_rater").item() == 0.0
    assert compute_dice(s, y, kind="per_rater", empty="one").item() == 0.5


def test_a_missing_single_rater_is_nan():
    s, y = torch.tensor([[FULL]]), torch.tensor([[FULL, [-1] * 4]])
    assert compute_dice(s, y, kind="single", rater=1).isnan().all()
    assert compute_dice(s, y, kind="majority").item() == 1.0


def test_bad_input():
    s = y = torch.tensor([[FULL]])
    with pytest.raises(ValueError, match="kind is 'soft'; choose one of"):
        compute_dice(s, y, kind="soft")
    with pytest.raises(ValueError, match="rater=1 does not exist: the index must be from 0 to 0"):
        compute_dice(s, y, kind="single", rater=1)
    with pytest.raises(ValueError, match="mean has shape"):
        compute_dice(s, y, mean=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="must agree in B and in"):
        compute_dice(s, y[..., :3])
