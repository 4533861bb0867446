import pytest
import torch

from monai_flowssn.metrics import compute_ece, compute_thresholded


@pytest.fixture
def soft():
    """Mean probabilities (2, K=3, 4, 5) and raters, one of them missing."""
    generator = torch.Generator().manual_seed(6)
    mean = (2 * torch.randn(2, 3, 4, 5, generator=generator)).softmax(1)
    raters = torch.randint(0, 3, (2, 4, 4, 5), generator=generator)
    raters[1, 2] = -1
    return mean, raters


@pytest.mark.parametrize("score", ["dice", "brier", "ece"])
def test_agrees_with_a_loop(soft, score):
    mean, raters = soft
    levels = (0.1, 0.3, 0.45, 0.7)
    for b, there in enumerate([[0, 1, 2, 3], [0, 1, 3]]):
        values = []
        for c in (1, 2):
            p = mean[b, c].double().flatten().tolist()
            q = [sum((raters[b, r].flatten()[i] == c).item() for r in there) / len(there) for i in range(20)]
            for t in levels:
                y = [v > t for v in q]
                if score == "dice":
                    s = [v > t for v in p]
                    both, total = sum(i and j for i, j in zip(s, y)), sum(s) + sum(y)
                    values.append(2 * both / total if total else 1.0)
                elif score == "brier":
                    values.append(sum((v - w) ** 2 for v, w in zip(p, y)) / 20)
                else:
                    bins = [[(v, w) for v, w in zip(p, y) if int(v * 10) == k] for k in range(10)]
                    values.append(sum(abs(sum(v - w for v, w in each)) for each in bins) / 20)
        got = compute_thresholded(mean, raters, score=score, levels=levels)[b].item()
        assert got == pytest.approx(sum(values) / len(values), abs=1e-6)


def test_empty_masks():
    p = torch.tensor([0.0, 0.0]).view(1, 1, 2)
    empty = torch.zeros(1, 3, 2, dtype=torch.uint8)
    mean = torch.cat([1 - p, p], 1)
    assert compute_thresholded(mean, empty).item() == 1
    assert compute_thresholded(mean, empty, score="brier").item() == 0
    assert compute_thresholded(mean, empty, score="ece").item() == 0
    assert compute_thresholded(mean, empty + 1).item() == 0


def test_a_single_rater_has_one_level(soft):
    mean, raters = soft
    one = raters[:, :1]
    got = compute_thresholded(mean, one, score="ece", levels=[0.2, 0.9])
    torch.testing.assert_close(got, compute_ece(mean[:, None], one))


def test_bad_input(soft):
    mean, raters = soft
    with pytest.raises(ValueError, match="levels="):
        compute_thresholded(mean, raters, levels=[1.0])
    with pytest.raises(ValueError, match="score is 'iou'"):
        compute_thresholded(mean, raters, score="iou")
    with pytest.raises(ValueError, match="must agree in B and in"):
        compute_thresholded(mean[..., :4], raters)
