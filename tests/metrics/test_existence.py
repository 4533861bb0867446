import pytest
import torch

from monai_flowssn.metrics import CaseMetric, compute_existence, existence_curve


def test_agrees_with_a_loop(case, reference):
    draws, raters, k = case
    a = [sum(bool((s > 0).any()) for s in d) / 5 for d in draws]
    b = [sum(bool((y > 0).any()) for y in reference.there(r)) / len(reference.there(r)) for r in raters]
    assert min(a) < 1
    assert min(b) < 1
    options = {"num_classes": k}
    assert compute_existence(draws, raters, kind="draws", **options).tolist() == pytest.approx(a)
    assert compute_existence(draws, raters, kind="raters", **options).tolist() == pytest.approx(b)
    brier = [(p - q) ** 2 for p, q in zip(a, b, strict=True)]
    assert compute_existence(draws, raters, **options).tolist() == pytest.approx(brier, abs=1e-7)


def test_weights_are_shares():
    draws = torch.tensor([[[1, 0], [0, 0]]])
    got = compute_existence(draws, draws, kind="draws", weights=torch.tensor([[3.0, 1.0]]))
    assert got.item() == pytest.approx(0.75)


def test_the_background_is_no_lesion():
    empty = torch.zeros(1, 2, 4, dtype=torch.uint8)
    metric = CaseMetric("existence", kind="draws", include_background=True)
    assert metric(empty, empty).item() == 0
    assert compute_existence(empty, empty).item() == 0


def test_calibration_over_cases():
    """Draws mark half of the time: raters never in one case, always in the other; then a case with both at 1."""
    half = torch.tensor([[[1], [0]], [[1], [0]], [[1], [1]]])
    raters = torch.tensor([[[0]], [[1]], [[1]]])
    metric = CaseMetric("existence", kind="calibration", num_bins=4)
    metric(half, raters)
    assert metric.aggregate().item() == 0  # 1/2 against the mean of 0 and 1, in one bin
    metric.reset()
    metric(half[:1], raters[:1])
    assert metric.aggregate().item() == pytest.approx(0.5)
    p, y, count = existence_curve(torch.tensor([0.6, 0.7, 1.0]), torch.tensor([0.0, 1.0, 1.0]), num_bins=4)
    assert count.tolist() == [0, 0, 2, 1]
    assert p[2:].tolist() == pytest.approx([0.65, 1])
    assert y[2:].tolist() == [0.5, 1]
    assert p[:2].isnan().all()


def test_bad_options():
    with pytest.raises(ValueError, match="kind is 'auc'"):
        CaseMetric("existence", kind="auc")
    with pytest.raises(ValueError, match="num_bins=0"):
        CaseMetric("existence", kind="calibration", num_bins=0)
