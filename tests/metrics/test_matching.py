import itertools
import math

import numpy as np
import pytest
import torch

from monai_flowssn.metrics import compute_average_iou, compute_ged, compute_hm_iou, matching

EMPTY, FULL = [0, 0, 0, 0], [1, 1, 1, 1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 4), (6, 2), (2, 3), (3, 2)])
def test_duplicate_is_the_best_of_all_permutations(reference, shape):
    table = np.random.default_rng(sum(shape)).random(shape)
    got = matching._planned_mean(table, np.ones(len(table)), matching._duplicate_plan)
    assert got == pytest.approx(reference.brute_hm_iou(table), abs=1e-9)


@pytest.mark.parametrize("shape", [(8, 4), (3, 6), (10, 4)])
def test_transport_is_the_repeated_assignment(shape):
    n, r = shape
    table = np.random.default_rng(0).random(shape).round(1)  # ties
    size = math.lcm(n, r)
    rows, columns = matching.linear_sum_assignment(table.repeat(size // n, 0).repeat(size // r, 1), maximize=True)
    expected = table[rows // (size // n), columns // (size // r)].mean()
    assert matching._planned_mean(table, np.ones(len(table)), matching._transport_plan) == pytest.approx(
        expected, abs=1e-9
    )


def test_two_draws_and_four_raters_by_hand():
    draws = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 1]]])
    raters = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]]])
    # IoU of draw 1: 1, 1/2, 2/3, 0; of draw 2: 0, 0, 1/4, 1. Two raters each: {1, 2} and {3, 4}, or {1, 3} and {2, 4}.
    best_pairs = max(1 + 1 / 2 + 1 / 4 + 1, 1 + 2 / 3 + 0 + 1)
    assert compute_hm_iou(draws, raters).item() == pytest.approx(best_pairs / 4)
    # Best: two draws can serve two raters only.
    assert compute_hm_iou(draws, raters, matching="best").item() == 1.0
    # Four draws of which two repeat serve all raters.
    assert compute_hm_iou(draws.repeat(1, 2, 1), raters, matching="best").item() == pytest.approx(best_pairs / 4)


@pytest.mark.parametrize("kind", ["duplicate", "best"])
def test_order_of_draws_does_not_matter(case, kind):
    draws, raters, k = case
    a = compute_hm_iou(draws, raters, num_classes=k, matching=kind)
    b = compute_hm_iou(draws.flip(1), raters, num_classes=k, matching=kind)
    torch.testing.assert_close(a, b)


def test_duplicate_of_a_perfect_sampler_tends_to_one():
    torch.manual_seed(0)
    raters = torch.rand(8, 4, 20) < 0.4
    index = torch.randint(0, 4, (8, 200))
    draws = raters.gather(1, index[..., None].expand(-1, -1, 20))
    few, many = compute_hm_iou(draws[:, :10], raters).mean(), compute_hm_iou(draws, raters).mean()
    assert few < many
    assert many > 0.9


def test_best_ignores_bad_draws():
    raters = torch.tensor([[[1, 0, 0, 0], [0, 1, 0, 0]]])
    draws = torch.cat([raters, torch.zeros(1, 6, 4, dtype=torch.int64)], 1)
    assert compute_hm_iou(draws, raters, matching="best").item() == 1.0
    assert compute_hm_iou(draws, raters).item() == 0.25


@pytest.mark.parametrize("kind", ["duplicate", "best"])
@pytest.mark.parametrize(
    ("draw", "rater", "one", "drop", "zero"),
    [(EMPTY, EMPTY, 1.0, math.nan, 0.0), (EMPTY, FULL, 0.0, 0.0, 0.0), (FULL, FULL, 1.0, 1.0, 1.0)],
)
def test_empty_masks(kind, draw, rater, one, drop, zero):
    s, y = torch.tensor([[draw]]), torch.tensor([[rater]])
    got = torch.cat([compute_hm_iou(s, y, matching=kind, empty=e) for e in ("one", "drop", "zero")])
    torch.testing.assert_close(got, torch.tensor([one, drop, zero]), equal_nan=True)


def test_dropped_pairs_are_matched_and_left_out():
    s, y = torch.tensor([[EMPTY, [1, 1, 0, 0]]]), torch.tensor([[EMPTY, FULL]])
    assert compute_hm_iou(s, y, empty="drop").item() == 0.5
    assert compute_hm_iou(s, y, empty="one").item() == 0.75


def test_empty_draws_go_to_empty_raters_before_they_are_dropped():
    a, c, d = [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]
    raters = torch.tensor([[EMPTY, a, d]])
    for draws in itertools.permutations([EMPTY, a, c]):
        # The pairs empty-empty (dropped), a-a and c-d.
        assert compute_hm_iou(torch.tensor([draws]), raters, empty="drop").item() == 0.5


def test_missing_raters_leave_the_matching(case):
    draws, raters, k = case
    got = compute_hm_iou(draws, raters, num_classes=k)[1:]
    torch.testing.assert_close(got, compute_hm_iou(draws[1:], raters[1:, :2], num_classes=k))


def test_average_iou(case, reference):
    draws, raters, k = case
    got = compute_average_iou(draws, raters, num_classes=k)
    expected = [
        reference.mean([reference.class_mean_iou(s, y, range(1, k), "one") for s in d for y in reference.there(r)])
        for d, r in zip(draws, raters, strict=True)
    ]
    torch.testing.assert_close(got, torch.tensor(expected))


def test_one_rater_makes_all_the_names_one_number(case):
    draws, raters, k = case
    single = raters[:, 1:2]
    average = compute_average_iou(draws, single, num_classes=k)
    torch.testing.assert_close(average, compute_hm_iou(draws, single, num_classes=k))
    one_draw = compute_ged(draws[:, :1], single, num_classes=k)
    torch.testing.assert_close(one_draw, 2 - 2 * compute_average_iou(draws[:, :1], single, num_classes=k))


def test_unknown_matching():
    with pytest.raises(ValueError, match="matching is 'worst'; choose one of"):
        compute_hm_iou(torch.tensor([[FULL]]), torch.tensor([[FULL]]), matching="worst")


def test_weights_are_how_often_a_draw_is_there(case):
    draws, raters, k = case
    repeats = torch.tensor([1, 3, 2, 0, 1])
    got = compute_hm_iou(draws, raters, num_classes=k, weights=repeats.float().expand(2, -1))
    expected = compute_hm_iou(draws.repeat_interleave(repeats, 1), raters, num_classes=k)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
