import itertools
import math

import numpy as np
import pytest
import torch

from monai_flowssn.metrics.rank import effective_rank, rank_from_spectrum
from monai_flowssn.networks.made import ConstantMaps
from monai_flowssn.segmenters.ssn import SSN


def reference(draws):
    """One case, from the definition, by NumPy."""
    a = draws.reshape(len(draws), -1).astype(np.float64)
    sigma = np.linalg.svd(a - a.mean(0), compute_uv=False)
    return math.exp(-sum(p * math.log(p) for p in sigma / sigma.sum() if p > 0))


@pytest.mark.parametrize("shape", [(5, 2, 4, 3), (40, 3, 2, 2, 2)], ids=["N < K d", "N > K d, 3-D"])
def test_it_is_the_definition(shape):
    draws = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).softmax(dim=2)
    expected = torch.tensor([reference(case.numpy()) for case in draws])
    torch.testing.assert_close(effective_rank(draws), expected)


def test_singular_values_that_are_known():
    left = torch.linalg.qr(torch.cat([torch.ones(8, 1), torch.randn(8, 3)], dim=1)).Q[:, 1:]  # orthogonal to the mean
    right = torch.linalg.qr(torch.randn(12, 3)).Q
    draws = 5 + left @ torch.tensor([6.0, 3.0, 1.0]).diag() @ right.T
    expected = 10 / (6**0.6 * 3**0.3 * 1**0.1)
    assert float(effective_rank(draws.view(1, 8, 2, 6))) == pytest.approx(expected, rel=1e-4)


def test_it_is_bounded_by_one_less_than_the_draws():
    for n in (2, 3, 10):
        rank = float(effective_rank(torch.randn(1, n, 2, 50, 50)))
        assert 0.97 * (n - 1) < rank <= n - 1 + 1e-4


def test_scale_offset_and_order_change_nothing():
    draws = torch.rand(2, 7, 2, 5, 5)
    rank = effective_rank(draws)
    torch.testing.assert_close(effective_rank(3 * draws + 1), rank)
    torch.testing.assert_close(effective_rank(draws[:, torch.randperm(7)]), rank)
    torch.testing.assert_close(effective_rank(draws.flip(0)), rank.flip(0))


def test_equal_draws_have_rank_zero_and_two_kinds_rank_one():
    draws = torch.rand(1, 1, 2, 5, 5).expand(2, 6, -1, -1, -1).clone()
    draws[1, 2:] += 0.1
    torch.testing.assert_close(effective_rank(draws), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(rank_from_spectrum(torch.tensor([1.0, 1.0, -1e-9])), torch.tensor(2.0))


@pytest.mark.parametrize("shape", [(2, 1, 2, 4), (2, 8, 8), (2, 0, 2, 4)])
def test_what_cannot_vary_is_refused(shape):
    with pytest.raises(ValueError, match=r"N of 2 or more"):
        effective_rank(torch.zeros(shape))
    with pytest.raises(ValueError, match="not label maps"):
        effective_rank(torch.zeros(2, 3, 2, 4, dtype=torch.long))


@torch.no_grad()
def test_the_probabilities_of_an_ssn_spread_less_than_its_rank_grows():
    """De Sousa Ribeiro et al. 2025, Theorem 4.4: erank(Cov(softmax(eta))) grows sublinearly with r; that of Cov(eta) is r."""
    torch.manual_seed(0)
    ranks = [1, 2, 4, 8, 16, 32, 64]
    before, after = [], []
    for r in ranks:
        factor = torch.linalg.qr(torch.randn(128, r)).Q.T * math.sqrt(128 / r)  # orthogonal; every logit has variance 1
        maps = torch.cat([torch.zeros(2, 8, 8), torch.full((2, 8, 8), -30.0), factor.reshape(r * 2, 8, 8)])
        model, image = SSN(ConstantMaps(maps), rank=r), torch.zeros(1, 1, 8, 8)
        logits = model.logits(model.encode(image), model.draw_noise(image, 8192))[0]
        for found, values in (before, logits), (after, logits.softmax(dim=1)):
            found.append(float(rank_from_spectrum(torch.linalg.eigvalsh(values.flatten(1).T.cov()))))
    np.testing.assert_allclose(before, ranks, rtol=0.03)
    assert all(a < b for a, b in itertools.pairwise(after))
    assert np.polyfit(np.log(ranks), np.log(before), 1)[0] > 0.98
    assert np.polyfit(np.log(ranks), np.log(after), 1)[0] < 0.95
