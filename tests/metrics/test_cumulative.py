import math

import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import metric as monai_metric

from monai_flowssn.metrics import METRICS, CaseMetric, compare, compute_dice, compute_ged, compute_nll

SOFT_METRICS = ["nll", "ece", "ncc"]


@pytest.fixture
def cases():
    """Three decollated cases with 4, 2 and 1 raters: soft draws and raters."""
    generator = torch.Generator().manual_seed(4)
    pred = [(2 * torch.randn(6, 2, 5, 5, generator=generator)).softmax(1) for _ in range(3)]
    raters = [torch.randint(0, 2, (r, 5, 5), generator=generator) for r in (4, 2, 1)]
    return pred, raters


@pytest.mark.parametrize("metric", METRICS)
def test_lists_whose_raters_differ(metric, cases):
    pred, raters = cases
    draws = pred if metric in SOFT_METRICS else [p.argmax(1) for p in pred]
    m = CaseMetric(metric)
    assert m([MetaTensor(d) for d in draws], raters).shape == (3,)
    one_by_one = CaseMetric(metric)
    for d, y in zip(draws, raters, strict=True):
        one_by_one(d[None], y[None])
    torch.testing.assert_close(m.get_buffer(), one_by_one.get_buffer())
    torch.testing.assert_close(m.aggregate(), m.get_buffer().mean())


def test_first_n_draws_from_one_run(cases):
    pred, raters = cases
    draws = [p.argmax(1) for p in pred]
    m = CaseMetric("ged", n=2, estimator="u")
    m(draws, raters)
    expected = [compute_ged(d[None, :2], y[None], estimator="u") for d, y in zip(draws, raters, strict=True)]
    torch.testing.assert_close(m.get_buffer(), torch.cat(expected))
    with pytest.raises(ValueError, match="got 6 draws, but the metric uses n=7"):
        CaseMetric("ged", n=7)(draws, raters)


def test_undefined_cases_leave_the_mean():
    m = CaseMetric("ged", empty="drop")
    m(torch.tensor([[[0, 0]], [[1, 0]]]), torch.tensor([[[0, 0]], [[1, 1]]]))
    torch.testing.assert_close(m.get_buffer(), torch.tensor([math.nan, 1.0]), equal_nan=True)
    assert m.aggregate().item() == 1.0


def test_dice_of_soft_draws_uses_the_mean_probability(cases):
    pred, raters = cases
    m = CaseMetric("dice", kind="per_rater")
    m(pred, raters)
    expected = compute_dice(pred[0].argmax(1)[None], raters[0][None], kind="per_rater", mean=pred[0].mean(0)[None])
    torch.testing.assert_close(m.get_buffer()[:1], expected)


def test_reset_forgets(cases):
    pred, raters = cases
    m = CaseMetric("nll")
    m(pred, raters)
    m.reset()
    with pytest.raises(ValueError, match="has seen no case"):
        m.aggregate()


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        ("ged", {"estimator": "w"}),
        ("hm_iou", {"matching": "worst"}),
        ("diversity", {"empty": "two"}),
        ("dice", {"kind": "soft"}),
        ("nll", {"eps": 0}),
        ("ece", {"num_bins": 0}),
        ("ged", {"n": 0}),
    ],
)
def test_bad_options_are_refused_before_the_first_case(metric, options):
    with pytest.raises(ValueError):
        CaseMetric(metric, **options)
    with pytest.raises(TypeError, match="wrong"):
        CaseMetric(metric, wrong=1)


def test_a_named_rater_is_a_good_option():
    m = CaseMetric("dice", kind="single", rater=3)
    m(torch.ones(1, 2, 4), torch.tensor([[[0] * 4, [0] * 4, [0] * 4, [1] * 4]]))
    assert m.aggregate().item() == 1.0


def test_raters_are_needed():
    with pytest.raises(ValueError, match="raters are None"):
        CaseMetric("ged")(torch.ones(1, 2, 4))


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="metric is 'iou'; choose one of 'ged', 'diversity'"):
        CaseMetric("iou")


def test_metrics_of_one_comparison_share_its_overlaps(cases):
    pred, raters = cases
    comparisons = [compare(p[None], y[None]) for p, y in zip(pred, raters, strict=True)]
    for name in METRICS:
        for n in (2, 6):
            shared, alone = CaseMetric(name, n=n), CaseMetric(name, n=n)
            shared(comparisons)
            alone(pred, raters)
            torch.testing.assert_close(shared.get_buffer(), alone.get_buffer())


def test_weights_of_draws(cases):
    """A draw of weight 2 / 7 is a draw that is there twice, in every metric but those that ask for pairs apart."""
    pred, raters = cases
    twice = [torch.cat([p, p[:1]]) for p in pred]
    weights = [torch.tensor([2.0, 1, 1, 1, 1, 1])] * 3
    for name in METRICS:
        a, b = CaseMetric(name), CaseMetric(name)
        a([compare(p[None], y[None], weights=w[None]) for p, y, w in zip(pred, raters, weights, strict=True)])
        b(twice, raters)
        torch.testing.assert_close(a.get_buffer(), b.get_buffer(), msg=name, rtol=1e-4, atol=1e-5)


def test_pooled_parts_are_added_up_over_cases(cases):
    pred, raters = cases
    m = CaseMetric("dice", kind="per_rater", pooled=True)
    m(pred, raters)
    pairs = [
        compute_dice(p.argmax(1)[None], y[None, None], kind="per_rater", mean=p.mean(0)[None])
        for p, case in zip(pred, raters, strict=True)
        for y in case
    ]
    assert len(pairs) == 7
    torch.testing.assert_close(m.aggregate(), torch.cat(pairs).nanmean())
    assert m.get_buffer().shape == (3, 2)


def test_processes_add_up_parts_and_join_values(cases, monkeypatch):
    """Two processes with one and two cases have the value of one process with three."""
    pred, raters = cases
    for options in ({"kind": "per_rater", "pooled": True}, {"kind": "expected"}):
        whole, here, there = (CaseMetric("dice", **options) for _ in range(3))
        whole(pred, raters)
        here(pred[:1], raters[:1])
        there(pred[1:], raters[1:])
        elsewhere = there.get_buffer()

        def gather(data, concat, elsewhere=elsewhere):
            return torch.cat([data, elsewhere])

        monkeypatch.setattr(monai_metric, "evenly_divisible_all_gather", gather)
        value = here.aggregate()
        monkeypatch.undo()
        torch.testing.assert_close(value, whole.aggregate())


def test_the_first_draws_keep_their_probabilities(cases):
    pred, raters = cases
    m = CaseMetric("nll", n=2)
    m(pred, raters)
    expected = [compute_nll(p[None, :2], y[None]) for p, y in zip(pred, raters, strict=True)]
    torch.testing.assert_close(m.get_buffer(), torch.cat(expected))


def test_as_many_raters_as_cases(cases):
    pred, raters = cases
    with pytest.raises(ValueError, match="shorter"):
        CaseMetric("ged")(pred, raters[:2])
