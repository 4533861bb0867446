import math

import numpy as np
import pytest
import torch

from monai_flowssn.metrics import compute_crps


@pytest.mark.parametrize("estimator", ["v", "u"])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_a_loop(case, reference, estimator, weighted):
    draws, raters, k = case
    weights = torch.rand(draws.shape[:2], generator=torch.Generator().manual_seed(0)) if weighted else None
    expected = []
    for b in range(2):
        w = np.ones(5) if weights is None else weights[b].double().numpy()
        per_class = []
        for c in range(1, k):
            v = [float((s == c).sum()) for s in draws[b]]
            error = [
                sum(w[n] * abs(v[n] - float((y == c).sum())) for n in range(5)) / w.sum()
                for y in reference.there(raters[b])
            ]
            pairs = [(n, m) for n in range(5) for m in range(5) if n != m or estimator == "v"]
            spread = sum(w[n] * w[m] * abs(v[n] - v[m]) for n, m in pairs) / sum(w[n] * w[m] for n, m in pairs)
            per_class.append(np.mean(error) - spread / 2)
        expected.append(np.mean(per_class))
    got = compute_crps(draws, raters, num_classes=k, estimator=estimator, weights=weights)
    assert got.tolist() == pytest.approx(expected, abs=1e-4)


def test_equal_draws_have_the_absolute_error():
    draws = torch.zeros(1, 3, 10, dtype=torch.uint8)
    draws[..., :4] = 1
    raters = torch.zeros(1, 2, 10, dtype=torch.uint8)
    raters[0, 0, :9] = 1
    assert compute_crps(draws, raters).item() == pytest.approx((5 + 4) / 2)
    assert compute_crps(draws, raters, voxel=0.25, estimator="u").item() == pytest.approx((5 + 4) / 8)


def test_empty_masks_have_an_area():
    empty, full = torch.zeros(1, 2, 6, dtype=torch.uint8), torch.ones(1, 2, 6, dtype=torch.uint8)
    assert compute_crps(empty, empty).item() == 0
    assert compute_crps(empty, full).item() == 6


def test_the_fair_score_does_not_depend_on_n():
    """Areas 0 and 1 with equal chance against one rater of area 0: the score is 1/2 - 1/4 for any number of draws."""
    for n in (2, 5):
        draws = torch.cartesian_prod(*[torch.arange(2)] * n)[..., None]  # every outcome once
        raters = torch.zeros(2**n, 1, 1, dtype=torch.uint8)
        assert compute_crps(draws, raters, estimator="u").mean().item() == pytest.approx(0.25)
        assert compute_crps(draws, raters).mean().item() == pytest.approx(0.25 + 0.25 / n)


def test_one_draw_has_no_fair_score():
    one = torch.ones(1, 1, 4, dtype=torch.uint8)
    assert math.isnan(compute_crps(one, one, estimator="u").item())
    with pytest.raises(ValueError, match="estimator is 'fair'"):
        compute_crps(one, one, estimator="fair")
