from itertools import product

import pytest
import torch
from tiny_scales import METHODS, SETTINGS, Case
from torch.nn.functional import one_hot

from monai_flowssn.data import MarkovShapes
from monai_flowssn.kernel_score import kernel_score, soft_jaccard_distance
from monai_flowssn.metrics import compute_ged


def as_draws(labels, classes=2):
    return one_hot(labels.long(), classes).movedim(-1, 2).float()  # (B, N, K, *S)


@pytest.mark.parametrize("classes", [2, 3])
def test_of_hard_masks_it_is_the_unbiased_ged_and_the_pixel_score(classes):
    torch.manual_seed(0)
    labels, masks = torch.randint(0, classes, (5, 3, 6, 6)), torch.randint(0, classes, (5, 4, 6, 6))
    labels[0], masks[0], masks[1, 2:] = 0, 0, -1
    masks[2, 1] = -1
    terms = kernel_score(as_draws(labels, classes), masks, smooth=1e-6)
    truth = compute_ged(labels, masks, num_classes=classes, estimator="u")
    torch.testing.assert_close(terms["ged"], truth.mean(), rtol=1e-5, atol=1e-5)
    pixel = torch.zeros(())
    for s, y in zip(labels, masks):  # a pixel's score is that of a categorical draw: differ or not
        y = y[(y >= 0).flatten(1).all(1)]
        between = (s[:, None] != y[None]).float().mean((0, 1))
        among = sum((s[i] != s[j]).float() for i, j in product(range(3), repeat=2)) / 6
        pixel += (2 * between - among).sum() / 5
    torch.testing.assert_close(terms["pixel_score"], pixel)
    torch.testing.assert_close(terms["loss"], terms["ged"] + 0.002 * terms["pixel_score"])


def expected_score(images, model, masks, **options):
    """The score of two draws of a model (M,) over images (M, *S), exactly: every pair of them with its probability."""
    pairs = list(product(range(len(images)), repeat=2))
    scores = [kernel_score(as_draws(images[list(pair)][None]), masks, **options)["loss"] for pair in pairs]
    return sum(model[i] * model[j] * score for (i, j), score in zip(pairs, scores))


@pytest.mark.parametrize("options", [{}, {"pixel_weight": 0.0}])
def test_two_masks_are_drawn_best_as_often_as_raters_draw_them(options):
    images = torch.stack([torch.zeros(4, 4), torch.ones(4, 4).tril()]).long()
    masks = images[[1, 0, 0, 0]][None]  # one in four
    scores = {p: float(expected_score(images, (1 - p, p), masks, **options)) for p in (0.1, 0.2, 0.25, 0.3, 0.4, 1.0)}
    assert min(scores, key=scores.get) == 0.25


def test_the_true_distribution_of_markov_shapes_is_the_minimum():
    toy = MarkovShapes()
    images = toy.images.flatten(1).double()[None, :, None]  # (1, N, 1, P)
    distance = soft_jaccard_distance(images, images)[0]  # (256, 256)
    truth = toy.probabilities

    def score(model):
        return 2 * model @ distance @ truth - model @ distance @ model

    generator = torch.Generator().manual_seed(0)
    for size in (0.01, 0.1, 1.0):
        other = truth * torch.exp(size * torch.randn(256, generator=generator, dtype=torch.float64))
        assert score(other / other.sum()) > score(truth)
    independent = torch.full((256,), 1 / 256, dtype=torch.float64)  # shapes that do not know each other
    assert score(independent) > score(truth)
    eigenvalues = torch.linalg.eigvalsh(distance - distance.mean(0) - distance.mean(1)[:, None] + distance.mean())
    assert eigenvalues.max() < 1e-9  # negative type, smoothing included: no distribution can do better


def test_its_mean_over_draws_does_not_depend_on_their_number():
    torch.manual_seed(0)
    pool, masks = torch.randint(0, 2, (6, 5, 5)), torch.randint(0, 2, (1, 3, 5, 5))
    means = []
    for n in (2, 4):
        chosen = torch.randint(0, 6, (4000, n))
        draws = as_draws(pool[chosen])
        scores = kernel_score(draws, masks.expand(4000, -1, -1, -1))
        means.append(scores["loss"])
    exact = expected_score(pool, [1 / 6] * 6, masks)
    torch.testing.assert_close(torch.stack(means), torch.stack([exact, exact]), rtol=0, atol=0.01)


def test_empty_masks_keep_a_gradient():
    foreground = torch.full((1, 2, 1, 8, 8), 1e-4, requires_grad=True)
    draws = torch.cat([1 - foreground, foreground], dim=2)
    marked = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    marked[..., 2:4, 2:4] = 1
    for smooth_only in (0.0, 0.002):
        (gradient,) = torch.autograd.grad(
            kernel_score(draws, marked, pixel_weight=smooth_only)["loss"], foreground, retain_graph=True
        )
        assert (gradient[..., 2:4, 2:4] < 0).all()  # more of it where the rater marked
        assert torch.isfinite(gradient).all()
    empty = torch.zeros_like(marked)
    (gradient,) = torch.autograd.grad(kernel_score(draws, empty)["loss"], foreground)
    assert (gradient > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_it_reaches_what_a_draw_depends_on(name):
    case = Case(name, SETTINGS["2-D, K=4"])
    masks = case.masks(3)
    masks[0, 1] = -1
    if not case.segmenter.differentiable:
        with pytest.raises(ValueError, match="no gradient to train on: pass finish 0"):
            case.segmenter(case.image, masks, score_draws=2)
        return
    terms = case.segmenter.train()(case.image, masks, score_draws=2)
    assert set(terms) == {"loss", "ged", "pixel_score"}
    terms["loss"].backward()
    gradients = [p.grad for p in case.segmenter.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def test_one_draw_and_wrong_masks_are_refused():
    draws, masks = as_draws(torch.zeros(1, 2, 3, 3)), torch.zeros(1, 1, 3, 3)
    with pytest.raises(ValueError, match="pass two or more"):
        kernel_score(draws[:, :1], masks)
    with pytest.raises(ValueError, match="class id 2"):
        kernel_score(draws, masks + 2)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 3, 2\)"):
        kernel_score(draws, masks[..., :2])
