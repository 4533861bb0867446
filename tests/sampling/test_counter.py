import pytest
import torch
from scipy.stats import chisquare, kstest

from monai_flowssn.sampling.counter import categorical, draw_keys, normal, uniform

N = 20_000


def reference(key, counter):
    """SplitMix64 in Python's own integers."""
    z = (key + (counter + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def keys(kind):
    torch.manual_seed(0)
    return {"random": draw_keys(N), "consecutive": torch.arange(N), "multiples": torch.arange(N) << 40}[kind]


@pytest.fixture(params=["random", "consecutive", "multiples"])
def any_keys(request):
    return keys(request.param)


def test_the_reference_is_the_published_generator():
    assert [reference(1234567, i) for i in range(2)] == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("counter", [0, 1, 7, 249, 10**6])
def test_the_numbers_are_the_upper_bits_of_the_reference(counter):
    torch.manual_seed(0)
    some = torch.cat([draw_keys(100), torch.tensor([0, -1, 1, 2**63 - 1, -(2**63)])])
    expected = [(reference(key, counter) >> 40) / 2**24 for key in some.tolist()]
    assert uniform(some, counter).tolist() == expected


def test_the_keys_are_left_alone_and_shapes_kept():
    torch.manual_seed(0)
    some = draw_keys(2, 3, 4, 5)
    before = some.clone()
    u = uniform(some, 3)
    assert torch.equal(some, before)
    assert u.shape == some.shape
    assert u.dtype == torch.float32
    assert torch.equal(uniform(some[..., 1:, 2:4], 3), u[..., 1:, 2:4])  # a crop of the keys is a crop of the numbers


def test_numbers_are_uniform_over_keys(any_keys):
    for counter in (0, 1, 100):
        u = uniform(any_keys, counter)
        assert (u >= 0).all()
        assert (u < 1).all()
        assert kstest(u.numpy(), "uniform").pvalue > 1e-4
        bits = ((u * 2**24).long()[:, None] >> torch.arange(24)) & 1
        assert (bits.float().mean(dim=0) - 0.5).abs().max() < 5 * 0.5 / N**0.5


def test_numbers_are_uniform_along_a_stream():
    for key in (0, -1, 123456789):
        stream = torch.cat([uniform(torch.tensor([key]), counter) for counter in range(3000)])
        assert kstest(stream.numpy(), "uniform").pvalue > 1e-4
        assert abs(torch.corrcoef(torch.stack([stream[1:], stream[:-1]]))[0, 1]) < 5 / 3000**0.5


def test_steps_are_uncorrelated(any_keys):
    u = torch.stack([uniform(any_keys, counter) for counter in range(20)])
    for values in (u, (u - 0.5).abs()):
        correlation = torch.corrcoef(values) - torch.eye(20)
        assert correlation.abs().max() < 5 / N**0.5


def test_pixels_are_uncorrelated(any_keys):
    u = uniform(any_keys, 5)
    for lag in (1, 2, 8, 64):
        assert abs(torch.corrcoef(torch.stack([u[lag:], u[:-lag]]))[0, 1]) < 5 / N**0.5


def test_pairs_of_steps_and_of_pixels_fill_the_square(any_keys):
    first, second = uniform(any_keys, 8), uniform(any_keys, 9)
    for x, y in ((first, second), (first[1:], first[:-1]), (first[1:], second[:-1])):
        cells = (x * 16).long() * 16 + (y * 16).long()
        assert chisquare(torch.bincount(cells, minlength=256).numpy()).pvalue > 1e-4


def test_keys_use_all_bits_and_follow_the_seed():
    torch.manual_seed(1)
    first = draw_keys(N)
    bits = (first[:, None] >> torch.arange(64)) & 1
    assert (bits.float().mean(dim=0) - 0.5).abs().max() < 5 * 0.5 / N**0.5
    assert len(first.unique()) == N
    torch.manual_seed(1)
    assert torch.equal(draw_keys(N), first)


def test_classes_have_their_probabilities():
    probabilities = torch.tensor([0.0, 0.15, 0.0, 0.6, 0.25, 0.0])
    chosen = categorical(probabilities.expand(N, -1), (torch.arange(N) + 0.5) / N)
    shares = torch.bincount(chosen, minlength=6) / N
    torch.testing.assert_close(shares, probabilities, atol=2 / N, rtol=0)


def test_classes_at_the_ends_of_the_interval():
    below_one = 1 - 2.0**-24
    probabilities = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    assert categorical(probabilities, torch.zeros(3)).tolist() == [1, 0, 0]
    assert categorical(probabilities, torch.full((3,), below_one)).tolist() == [1, 0, 1]
    torch.manual_seed(0)
    many = torch.randn(1000, 7).softmax(dim=1)  # whose sums in float32 are not all 1
    assert categorical(many, torch.full((1000,), below_one)).max() == 6


def test_classes_of_maps():
    torch.manual_seed(0)
    probabilities, u = torch.rand(2, 3, 4, 5).softmax(dim=1), torch.rand(2, 4, 5)
    chosen = categorical(probabilities, u)
    assert chosen.shape == (2, 4, 5)
    for place in ((0, 0, 0), (1, 3, 4)):
        b, *pixel = place
        edges = probabilities[b, :, pixel[0], pixel[1]].tolist()
        expected = 0 if u[place] < edges[0] else 1 if u[place] < edges[0] + edges[1] else 2
        assert chosen[place] == expected


def test_normal_numbers_are_normal_and_independent(any_keys):
    first, second = normal(any_keys, 0), normal(any_keys, 1)
    assert kstest(first, "norm").pvalue > 1e-3
    assert abs((first * second).mean()) < 4 / N**0.5
    assert abs(((first**2 - 1) * (second**2 - 1)).mean()) < 4 * 2 / N**0.5


def test_normal_numbers_are_finite_at_both_ends_of_the_uniform_ones(monkeypatch):
    monkeypatch.setattr("monai_flowssn.sampling.counter.uniform", lambda keys, counter: keys)
    ends = normal(torch.tensor([0.0, 1 - 2**-24]), 0)
    assert ends[0] == 0
    assert ends[1].item() == pytest.approx(5.77, abs=0.01)
