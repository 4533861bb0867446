import math

import pytest
import torch
from monai.data import MetaTensor

from monai_flowssn import metrics
from monai_flowssn.metrics import GEDMetric, RaterDiceMetric, compute_dice, compute_ged

LABEL_METRICS = [metrics.GEDMetric, metrics.HMIoUMetric, metrics.AverageIoUMetric, metrics.DiversityMetric]
SOFT_METRICS = [metrics.NLLMetric, metrics.CalibrationMetric, metrics.NCCMetric]


@pytest.fixture
def cases():
    """Three decollated cases with 4, 2 and 1 raters: soft draws and raters."""
    generator = torch.Generator().manual_seed(4)
    pred = [(2 * torch.randn(6, 2, 5, 5, generator=generator)).softmax(1) for _ in range(3)]
    raters = [torch.randint(0, 2, (r, 5, 5), generator=generator) for r in (4, 2, 1)]
    return pred, raters


@pytest.mark.parametrize("metric", [*LABEL_METRICS, *SOFT_METRICS, RaterDiceMetric])
def test_lists_whose_raters_differ(metric, cases):
    pred, raters = cases
    draws = pred if metric in SOFT_METRICS else [p.argmax(1) for p in pred]
    m = metric()
    assert m([MetaTensor(d) for d in draws], raters).shape == (3,)
    one_by_one = metric()
    for d, y in zip(draws, raters, strict=True):
        one_by_one(d[None], y[None])
    torch.testing.assert_close(m.get_buffer(), one_by_one.get_buffer())
    torch.testing.assert_close(m.aggregate(), m.get_buffer().mean())


def test_first_n_draws_from_one_run(cases):
    pred, raters = cases
    draws = [p.argmax(1) for p in pred]
    m = GEDMetric(n=2, estimator="u")
    m(draws, raters)
    expected = [compute_ged(d[None, :2], y[None], estimator="u") for d, y in zip(draws, raters, strict=True)]
    torch.testing.assert_close(m.get_buffer(), torch.cat(expected))
    with pytest.raises(ValueError, match="got 6 draws, but the metric uses n=7"):
        GEDMetric(n=7)(draws, raters)


def test_undefined_cases_leave_the_mean():
    m = GEDMetric(empty="drop")
    m(torch.tensor([[[0, 0]], [[1, 0]]]), torch.tensor([[[0, 0]], [[1, 1]]]))
    torch.testing.assert_close(m.get_buffer(), torch.tensor([math.nan, 1.0]), equal_nan=True)
    assert m.aggregate().item() == 1.0


def test_dice_of_soft_draws_uses_the_mean_probability(cases):
    pred, raters = cases
    m = RaterDiceMetric(kind="per_rater")
    m(pred, raters)
    expected = compute_dice(pred[0].argmax(1)[None], raters[0][None], kind="per_rater", mean=pred[0].mean(0)[None])
    torch.testing.assert_close(m.get_buffer()[:1], expected)


def test_reset_forgets(cases):
    pred, raters = cases
    m = metrics.NLLMetric()
    m(pred, raters)
    m.reset()
    with pytest.raises(ValueError, match="has seen no case"):
        m.aggregate()


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        (metrics.GEDMetric, {"estimator": "w"}),
        (metrics.HMIoUMetric, {"matching": "worst"}),
        (metrics.DiversityMetric, {"empty": "two"}),
        (RaterDiceMetric, {"kind": "soft"}),
        (metrics.NLLMetric, {"eps": 0}),
        (metrics.CalibrationMetric, {"num_bins": 0}),
        (metrics.GEDMetric, {"n": 0}),
    ],
)
def test_bad_options_are_refused_before_the_first_case(metric, options):
    with pytest.raises(ValueError):
        metric(**options)
    with pytest.raises(TypeError, match="wrong"):
        metric(wrong=1)


def test_a_named_rater_is_a_good_option():
    m = RaterDiceMetric(kind="single", rater=3)
    m(torch.ones(1, 2, 4), torch.tensor([[[0] * 4, [0] * 4, [0] * 4, [1] * 4]]))
    assert m.aggregate().item() == 1.0


def test_raters_are_needed():
    with pytest.raises(ValueError, match="raters are None"):
        GEDMetric()(torch.ones(1, 2, 4))
