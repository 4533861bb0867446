import math

import pytest
import torch

from monai_flowssn.metrics import compute_diversity, compute_ged, diversity_from_iou, ged_from_iou, iou_table

EMPTY, FULL = [0, 0, 0, 0], [1, 1, 1, 1]


@pytest.mark.parametrize("empty", ["one", "drop", "zero"])
@pytest.mark.parametrize("estimator", ["v", "u"])
def test_agrees_with_a_loop(case, reference, estimator, empty):
    draws, raters, k = case
    got = compute_ged(draws, raters, num_classes=k, estimator=estimator, empty=empty)
    expected = [reference.ged(s, y, range(1, k), estimator, empty) for s, y in zip(draws, raters, strict=True)]
    torch.testing.assert_close(got.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_is_never_negative_and_zero_for_identical_sets(case):
    draws, raters, k = case
    assert (compute_ged(draws, raters, num_classes=k) >= 0).all()
    torch.testing.assert_close(compute_ged(draws, draws, num_classes=k), torch.zeros(2), atol=1e-6, rtol=0)
    for seed in range(20):
        torch.manual_seed(seed)
        p = torch.rand(1, 1, 6)  # shared, so that the sets are close and the distance small
        s, y = torch.rand(30, 6, 6) < p, torch.rand(30, 4, 6) < p
        assert compute_ged(s, y).min() >= -1e-6


def test_the_bias_of_v_is_diversity_over_n(case):
    draws, raters, k = case
    v, u = (compute_ged(draws, raters, num_classes=k, estimator=e) for e in "vu")
    diversity = compute_diversity(draws, num_classes=k, estimator="u")
    torch.testing.assert_close(v - u, diversity / draws.shape[1])


def test_v_falls_with_n_and_u_does_not():
    torch.manual_seed(0)
    p = torch.rand(1, 1, 12)
    s, y = torch.rand(400, 32, 12) < p, torch.rand(400, 4, 12) < p
    table = iou_table(s, y)
    v = {n: ged_from_iou(table.first(n)).mean().item() for n in (4, 32)}
    u = {n: ged_from_iou(table.first(n), estimator="u").mean().item() for n in (4, 32)}
    diversity = diversity_from_iou(table, estimator="u").mean().item()
    assert v[4] - v[32] == pytest.approx(diversity * (1 / 4 - 1 / 32), abs=0.01)
    assert u[4] == pytest.approx(u[32], abs=0.01)


def test_u_of_a_perfect_sampler_is_the_raters_own_bias():
    """The rater term keeps its diagonal, so draws from the raters' distribution give D / R and not 0 on average."""
    torch.manual_seed(0)
    p = torch.rand(1, 1, 12)
    s, y = torch.rand(2000, 8, 12) < p, torch.rand(2000, 4, 12) < p
    u, diversity = compute_ged(s, y, estimator="u"), compute_diversity(s, estimator="u")
    error = u.std().item() / math.sqrt(len(u))
    assert (u - diversity / 4).mean().item() == pytest.approx(0, abs=4 * error)


def test_u_of_draws_from_the_raters_of_the_case_is_zero_on_average():
    torch.manual_seed(0)
    y = (torch.rand(1, 4, 12) < 0.5).expand(4000, -1, -1)
    index = torch.randint(0, 4, (4000, 6))
    s = y.gather(1, index[..., None].expand(-1, -1, 12))
    u = compute_ged(s, y, estimator="u")
    assert u.mean().item() == pytest.approx(0, abs=4 * u.std().item() / math.sqrt(len(u)))


@pytest.mark.parametrize(
    ("draw", "rater", "one", "drop", "zero"),
    [
        (EMPTY, EMPTY, 0.0, math.nan, 0.0),  # zero: each mask is at distance 1 even from itself, 2 - 1 - 1
        (EMPTY, FULL, 2.0, 2.0, 1.0),
        (FULL, EMPTY, 2.0, 2.0, 1.0),
        (FULL, FULL, 0.0, 0.0, 0.0),
    ],
)
def test_empty_masks(draw, rater, one, drop, zero):
    s, y = torch.tensor([[draw]]), torch.tensor([[rater]])
    got = torch.cat([compute_ged(s, y, empty=e) for e in ("one", "drop", "zero")])
    torch.testing.assert_close(got, torch.tensor([one, drop, zero]), equal_nan=True)


def test_dropped_pairs_leave_the_means():
    s, y = torch.tensor([[EMPTY, FULL]]), torch.tensor([[EMPTY, FULL]])
    # Of the four draw-rater pairs three remain, two at distance 1; the same within each set.
    assert compute_ged(s, y, empty="drop").item() == pytest.approx(2 * 2 / 3 - 2 / 3 - 2 / 3, abs=1e-6)


def test_one_draw_and_one_rater():
    s, y = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 0, 0]]])
    assert compute_ged(s, y).item() == 1.0
    assert compute_ged(s, y, estimator="u").isnan()
    assert compute_diversity(s).item() == 0.0
    assert compute_diversity(s, estimator="u").isnan()


def test_a_missing_rater_is_as_if_it_were_not_there(case):
    draws, raters, k = case
    with_gap, without = compute_ged(draws, raters, num_classes=k), compute_ged(draws[1:], raters[1:, :2], num_classes=k)
    torch.testing.assert_close(with_gap[1:], without)


def test_unknown_estimator():
    with pytest.raises(ValueError, match="estimator is 'w'; choose one of"):
        compute_ged(torch.tensor([[FULL]]), torch.tensor([[FULL]]), estimator="w")


def test_weights_are_how_often_a_draw_is_there(case):
    draws, raters, k = case
    repeats = torch.tensor([1, 3, 2, 0, 1])
    weights = repeats.float().expand(2, -1)
    many = draws.repeat_interleave(repeats, 1)
    torch.testing.assert_close(
        compute_ged(draws, raters, num_classes=k, weights=weights), compute_ged(many, raters, num_classes=k)
    )
    torch.testing.assert_close(
        compute_diversity(draws, num_classes=k, weights=weights), compute_diversity(many, num_classes=k)
    )


def test_u_of_weighted_draws_is_the_distance_of_two_that_differ():
    """Two draws, distance 1, weights .75 and .25: they differ only one from the other, whatever the weights."""
    draws = torch.tensor([[[1, 0], [0, 1]]])
    weights = torch.tensor([[0.75, 0.25]])
    assert compute_diversity(draws, weights=weights, estimator="u").item() == pytest.approx(1)
    assert compute_diversity(draws, weights=weights).item() == pytest.approx(2 * 0.75 * 0.25)


@pytest.mark.parametrize(
    "weights", [[[1.0, -1.0]], [[0.0, 0.0]], [[1.0, float("nan")]], [[1.0]], [[1.0, float("inf")]]]
)
def test_bad_weights(weights):
    draws = torch.tensor([[[1, 0], [0, 1]]])
    with pytest.raises(ValueError, match="weights"):
        compute_ged(draws, draws, weights=torch.tensor(weights))


def test_a_pair_without_a_class_can_cost_the_case():
    draws, raters = torch.tensor([[[0, 0], [1, 0]], [[1, 1], [1, 0]]]), torch.tensor([[[0, 0]], [[1, 1]]])
    got = compute_ged(draws, raters, empty="drop_case")
    assert got[0].isnan()
    assert got[1] == compute_ged(draws, raters)[1]
    only_raters = compute_ged(torch.tensor([[[1, 1]]]), torch.tensor([[[0, 0], [1, 1]]]), empty="drop_case")
    assert only_raters.isnan().all()
