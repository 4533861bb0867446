import itertools
import math

import numpy as np
import pytest
import torch

from monai_flowssn.metrics import compute_dice, pool

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


@pytest.mark.parametrize("kind", ["max", "max_draw", "max_pair", "match"])
def test_the_best_draws_agree_with_a_loop(case, reference, kind):
    draws, raters, k = case
    expected = []
    for d, r in zip(draws, raters, strict=True):
        present = reference.there(r)
        table = np.array([[class_mean_dice(reference, s, y, k, "one") for y in present] for s in d])
        assignments = itertools.permutations(range(len(d)), len(present))
        expected.append(
            {
                "max": table.max(0).mean(),
                "max_draw": table.max(1).mean(),
                "max_pair": table.max(),
                "match": max(np.mean([table[n, r] for r, n in enumerate(order)]) for order in assignments),
            }[kind]
        )
    got = compute_dice(draws, raters, num_classes=k, kind=kind)
    assert got.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["max", "max_draw", "max_pair", "match"])
def test_empty_masks_of_the_best_draws(kind):
    s, y = torch.tensor([[EMPTY, FULL]]), torch.tensor([[EMPTY]])
    one, drop, zero = (compute_dice(s, y, kind=kind, empty=e).item() for e in ("one", "drop", "zero"))
    assert one == (0.5 if kind == "max_draw" else 1)
    assert drop == 0 or (kind == "match" and math.isnan(drop))
    assert zero == 0


def test_where_someone_marked():
    draws = torch.tensor([[EMPTY], [FULL], [FULL]])
    raters = torch.tensor([[EMPTY, EMPTY, EMPTY], [FULL, EMPTY, EMPTY], [FULL, FULL, EMPTY]])
    for where, expected in (("any", [math.nan, 0, 1]), ("majority", [math.nan, math.nan, 1])):
        got = compute_dice(draws, raters, where=where)
        torch.testing.assert_close(got, torch.tensor(expected), equal_nan=True)
    pairs = compute_dice(draws, raters, kind="per_rater")
    torch.testing.assert_close(pairs, torch.tensor([math.nan, 1 / 3, 2 / 3]), equal_nan=True)
    pairs = compute_dice(draws, raters, kind="per_rater", where="rater")
    torch.testing.assert_close(pairs, torch.tensor([math.nan, 1, 1]), equal_nan=True)
    expected = compute_dice(draws, raters, kind="expected", where="rater")
    torch.testing.assert_close(expected, torch.tensor([math.nan, 1, 1]), equal_nan=True)


def test_pooled_pairs_count_alike_over_cases():
    draws = torch.tensor([[FULL], [FULL]])
    raters = torch.tensor([[FULL, [-1] * 4, [-1] * 4], [FULL, EMPTY, EMPTY]])
    parts = compute_dice(draws, raters, kind="per_rater", pooled=True)
    assert parts.tolist() == [[1, 1], [1, 3]]
    assert pool(parts.sum(0)).item() == 0.5
    assert compute_dice(draws, raters, kind="per_rater").mean().item() == pytest.approx((1 + 1 / 3) / 2)
    parts = compute_dice(draws, raters, kind="per_rater", pooled=True, where="rater")
    assert pool(parts.sum(0)).item() == 1
    with pytest.raises(ValueError, match="choose 'per_rater' or another that fuses"):
        compute_dice(draws, raters, kind="expected", pooled=True)


def test_plurality_needs_no_majority():
    raters = torch.tensor([[[1, 2], [1, 0], [2, 0], [0, 1]]])  # 1 of two in four; a tie of 0, twice
    assert compute_dice(torch.tensor([[[1, 0]]]), raters, num_classes=3, kind="plurality").item() == 1.0
    assert compute_dice(torch.tensor([[[1, 0]]]), raters, num_classes=3).item() == 0.5


def test_weights_decide_the_vote():
    draws, raters = torch.tensor([[FULL, EMPTY, EMPTY]]), torch.tensor([[FULL]])
    assert compute_dice(draws, raters).item() == 0
    assert compute_dice(draws, raters, weights=torch.tensor([[3.0, 1, 1]])).item() == 1
    assert compute_dice(draws, raters, kind="expected", weights=torch.tensor([[3.0, 1, 1]])).item() == pytest.approx(
        0.6
    )


def test_half_of_the_raters_are_no_majority():
    """Two who disagree leave background; the draw is right where it is background, and wrong where it is not."""
    raters = torch.tensor([[[1, 1, 0, 0], [0, 1, 1, 0]]])
    found = compute_dice(torch.tensor([[[0, 1, 0, 0]]]), raters, kind="majority")
    assert found.item() == 1
    assert compute_dice(torch.tensor([[[1, 1, 1, 0]]]), raters, kind="majority").item() == pytest.approx(2 / 4)


def test_half_for_one_class_and_half_for_another_is_background():
    raters = torch.tensor([[[1, 1, 0], [2, 1, 0]]])
    assert compute_dice(torch.tensor([[[0, 1, 0]]]), raters, num_classes=3, kind="majority").item() == 1
    assert compute_dice(torch.tensor([[[1, 1, 0]]]), raters, num_classes=3, kind="majority").item() < 1
