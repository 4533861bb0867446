import math

import numpy as np
import pytest
import torch

from monai_flowssn.metrics import compute_ece, compute_ncc, compute_nll, pool


@pytest.fixture
def soft():
    """Soft draws (2, 3, K=3, 4, 5) and raters, one of them missing."""
    generator = torch.Generator().manual_seed(1)
    pred = torch.randn(2, 3, 3, 4, 5, generator=generator).softmax(2)
    raters = torch.randint(0, 3, (2, 4, 4, 5), generator=generator)
    raters[1, 3] = -1
    return pred, raters


def test_nll_of_one_draw_is_the_cross_entropy(soft):
    pred, raters = soft
    got = compute_nll(pred[:, :1], raters[:, :1])
    expected = torch.nn.functional.nll_loss(pred[:, 0].log(), raters[:, 0], reduction="none").sum((1, 2))
    torch.testing.assert_close(got, expected)


def test_nll_agrees_with_a_loop(soft):
    pred, raters = soft
    for b, there in enumerate([4, 3]):
        values = []
        for y in raters[b, :there]:
            likelihoods = []
            for p in pred[b].double():
                likelihood = 1.0
                for i in range(4):
                    for j in range(5):
                        likelihood *= p[y[i, j], i, j].item()
                likelihoods.append(likelihood)
            values.append(-math.log(sum(likelihoods) / 3))
        assert compute_nll(pred, raters)[b].item() == pytest.approx(sum(values) / there, rel=1e-6)


def test_nll_of_many_pixels_does_not_underflow():
    pred = torch.full((1, 2, 2, 5000), 0.5)
    assert compute_nll(pred, torch.ones(1, 1, 5000, dtype=torch.uint8)).item() == pytest.approx(5000 * math.log(2))


def test_nll_bounds_an_excluded_pixel():
    pred = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
    rater = torch.ones(1, 1, 1, dtype=torch.uint8)
    assert compute_nll(pred, rater).item() == pytest.approx(-math.log(1e-6), rel=1e-5)
    assert compute_nll(pred, rater, eps=1e-3).item() == pytest.approx(-math.log(1e-3), rel=1e-5)


def test_ece_agrees_with_a_loop(soft):
    pred, raters = soft
    for kind in ("ece", "ace"):
        for b, there in enumerate([4, 3]):
            per_class = []
            for c in (1, 2):
                bins = {}
                for i in range(4):
                    for j in range(5):
                        p = pred[b, :, c, i, j].mean().item()
                        y = sum((raters[b, r, i, j] == c).item() for r in range(there)) / there
                        bins.setdefault(int(p * 10), []).append((p, y))
                gaps = [(abs(sum(p - y for p, y in v)) / len(v), len(v)) for v in bins.values()]
                weights = [n if kind == "ece" else 1 for _, n in gaps]
                per_class.append(sum(g * w for (g, _), w in zip(gaps, weights, strict=True)) / sum(weights))
            assert compute_ece(pred, raters, kind=kind)[b].item() == pytest.approx(sum(per_class) / 2, abs=1e-5)


@pytest.mark.parametrize("kind", ["ece", "ace"])
def test_ece_by_hand(kind):
    pred = torch.tensor([[0.2, 0.8], [0.8, 0.2]]).view(1, 1, 2, 2).repeat_interleave(2, -1)  # foreground .8 .8 .2 .2
    calibrated = torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]])
    assert compute_ece(pred, calibrated, kind=kind).item() == pytest.approx(0, abs=1e-6)
    assert compute_ece(pred, calibrated[:, :1], kind=kind).item() == pytest.approx(0.2, abs=1e-6)
    assert compute_ece(pred, 1 - calibrated[:, :1], kind=kind, num_bins=20).item() == pytest.approx(0.8, abs=1e-6)


def test_ece_uses_the_mean_draw():
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[None, :, :, None]  # two draws, one pixel: foreground 0 and 1
    raters = torch.tensor([[[0], [1]]])
    assert compute_ece(certain, raters).item() == 0.0


def test_ncc_agrees_with_numpy(soft):
    pred, raters = soft
    for b, there in enumerate([4, 3]):
        p = pred[b].double().numpy()
        log_p = np.log(p + 1e-8)
        spread = np.mean([-(p.mean(0) * log_s).sum(0) for log_s in log_p], 0)
        values = []
        for y in raters[b, :there].numpy():
            one_hot = np.stack([y == c for c in range(3)])
            error = np.mean([-(one_hot * log_s).sum(0) for log_s in log_p], 0)
            values.append(np.corrcoef(spread.ravel(), error.ravel())[0, 1])
        assert compute_ncc(pred, raters)[b].item() == pytest.approx(np.mean(values), abs=1e-6)


def test_ncc_of_a_constant_map_is_undefined():
    assert compute_ncc(torch.full((1, 2, 2, 4), 0.5), torch.tensor([[[0, 1, 0, 1]]])).isnan().all()


@pytest.mark.parametrize("compute", [compute_nll, compute_ece, compute_ncc])
def test_bad_input(compute, soft):
    pred, raters = soft
    with pytest.raises(ValueError, match="apply the softmax"):
        compute(pred * 5, raters)
    with pytest.raises(ValueError, match="apply the softmax"):
        compute(pred * math.nan, raters)
    with pytest.raises(ValueError, match="not label maps"):
        compute(pred.argmax(2), raters)
    with pytest.raises(ValueError, match="must agree in B and in"):
        compute(pred[..., :4], raters)
    with pytest.raises(ValueError, match="class id 2"):
        compute(pred[:, :, :2] / 2, raters)
    with pytest.raises(ValueError, match="case 0 of the batch: none of the"):
        compute(pred, torch.full_like(raters, -1))


def test_bad_options(soft):
    with pytest.raises(ValueError, match="eps=0 must lie"):
        compute_nll(*soft, eps=0)
    with pytest.raises(ValueError, match="kind is 'mce'; choose one of"):
        compute_ece(*soft, kind="mce")
    with pytest.raises(ValueError, match="num_bins"):
        compute_ece(*soft, num_bins=0)


@pytest.mark.parametrize("compute", [compute_nll, compute_ece, compute_ncc])
def test_weights_are_how_often_a_draw_is_there(compute, soft):
    pred, raters = soft
    repeats = torch.tensor([3, 0, 2])
    got = compute(pred, raters, weights=repeats.float().expand(2, -1))
    torch.testing.assert_close(got, compute(pred.repeat_interleave(repeats, 1), raters))


def test_pooled_ece_is_that_of_all_pixels(soft):
    pred, raters = soft
    parts = compute_ece(pred, raters[:, :3], pooled=True).sum(0)
    together = compute_ece(_side_by_side(pred), _side_by_side(raters[:, :3]))
    torch.testing.assert_close(pool(parts), together[0])


def _side_by_side(x):
    """The images of a batch as one."""
    return torch.cat(list(x), -1)[None]
