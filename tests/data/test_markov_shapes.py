import itertools
import math

import pytest
import torch

from monai_flowssn.data.markov_shapes import MarkovShapes

TOY = MarkovShapes()

SQUARE_PLUS_OVER_DOT_EMPTY = """
................
.######....##...
.######....##...
.######..######.
.######..######.
.######....##...
.######....##...
................
................
................
................
...##...........
...##...........
................
................
................
"""


def test_the_drawing():
    rows = SQUARE_PLUS_OVER_DOT_EMPTY.split()
    expected = torch.tensor([[pixel == "#" for pixel in row] for row in rows]).to(torch.uint8)
    states = [TOY.shapes.index(name) for name in ("square", "plus", "dot", "empty")]
    at = TOY.states.tolist().index(states)
    torch.testing.assert_close(TOY.images[at], expected, rtol=0, atol=0)


def test_the_probabilities_are_those_of_the_chain():
    t = {("empty", b): 1 / 4 for b in TOY.shapes}
    for a, b in itertools.product(TOY.shapes[1:], TOY.shapes):
        t[a, b] = 1 / 4 if b == "empty" else 3 / 40 if a == b else 27 / 80
    for states, probability in zip(TOY.states.tolist(), TOY.probabilities.tolist(), strict=True):
        chain = [TOY.shapes[s] for s in states]
        assert probability == pytest.approx(math.prod(t[pair] for pair in itertools.pairwise(chain)) / 4, rel=1e-12)
    assert float(TOY.probabilities.sum()) == pytest.approx(1, abs=1e-12)
    assert len(TOY.images.flatten(1).unique(dim=0)) == 256


def test_every_quadrant_is_uniform():
    for quadrant, state in itertools.product(range(4), range(4)):
        there = TOY.states[:, quadrant] == state
        assert float(TOY.probabilities[there].sum()) == pytest.approx(1 / 4, abs=1e-12)


def test_the_entropy_by_the_chain_rule():
    after_shape = -sum(n * p * math.log2(p) for n, p in ((1, 1 / 4), (1, 3 / 40), (2, 27 / 80)))
    assert TOY.entropy == pytest.approx(2 + 3 * (1 / 4 * 2 + 3 / 4 * after_shape), abs=1e-9)
    assert TOY.entropy == pytest.approx(7.6356, abs=5e-5)
    assert TOY.bits_per_dimension == pytest.approx(0.02983, abs=5e-6)


def test_the_covariance():
    assert int(torch.linalg.matrix_rank(TOY.covariance)) == 12
    pixels = TOY.sample(50_000, torch.Generator().manual_seed(0)).flatten(1).double()
    torch.testing.assert_close(pixels.T.cov(), TOY.covariance, rtol=0, atol=1e-2)
    top_left_corner = 1 * 16 + 1  # only the square reaches it
    assert float(TOY.covariance[top_left_corner, top_left_corner]) == pytest.approx(1 / 4 * 3 / 4)
    right_corner = top_left_corner + 8  # square after square, 3/40
    assert float(TOY.covariance[top_left_corner, right_corner]) == pytest.approx(1 / 4 * 3 / 40 - 1 / 16)


def test_images_are_identified_and_hallucinations_found():
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(TOY.identify(TOY.images[order]), order)
    flipped = TOY.images[order[:16]].clone()
    flipped[:, 0, 0] = 1
    other_class = TOY.images[order[:16]].long() * 2
    seen = order[:16] != 0  # the empty image has no pixel of another class
    assert (TOY.identify(flipped) == -1).all()
    assert (TOY.identify(other_class)[seen] == -1).all()
    with pytest.raises(ValueError, match=r"\(2, 8, 8\).*\(N, 16, 16\)"):
        TOY.identify(torch.zeros(2, 8, 8))


def test_samples_follow_the_distribution():
    n = 65_536
    generator = torch.Generator().manual_seed(0)
    found = TOY.identify(TOY.sample(n, generator))
    assert (found >= 0).all()
    assert TOY.total_variation(found) == pytest.approx(TOY.expected_total_variation(n), rel=0.2)
    torch.testing.assert_close(TOY.sample(3, generator.manual_seed(1)), TOY.sample(3, generator.manual_seed(1)))


def test_total_variation_by_hand():
    exact = torch.arange(256).repeat_interleave((TOY.probabilities * 4 * 80**3).round().long())  # 2,048,000 in all
    assert TOY.total_variation(exact) == pytest.approx(0, abs=1e-9)
    nothing = torch.full((5,), -1)
    assert TOY.total_variation(nothing) == pytest.approx(1)
    assert TOY.total_variation(torch.cat([exact, torch.full_like(exact, -1)])) == pytest.approx(0.5)
    assert TOY.total_variation(torch.tensor([7])) == pytest.approx(1 - float(TOY.probabilities[7]))
