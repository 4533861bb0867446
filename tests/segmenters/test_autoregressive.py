"""Densities against known Gaussians, and the signs and limits of the entropy and dual objectives."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal
from torch.nn import functional as F

from monai_flowssn.segmenters import AutoregressiveFlowSSN, DualFlowSSN

SIZE, K = (2, 2), 2
D = K * 4


class Free(nn.Module):
    """The same outputs for every image."""

    def __init__(self, channels):
        super().__init__()
        self.outputs = nn.Parameter(torch.randn(1, channels, *SIZE))

    def forward(self, image):
        return self.outputs.expand(len(image), *self.outputs.shape[1:])


class LinearNet(nn.Module):
    """Location A x over the flattened elements, A strictly lower triangular, and log-scales of their own."""

    def __init__(self, matrix, log_scale):
        super().__init__()
        self.matrix, self.log_scale = nn.Parameter(matrix.tril(-1)), nn.Parameter(log_scale)

    def forward(self, x):
        loc = x.flatten(1) @ self.matrix.tril(-1).T
        return torch.cat([loc, self.log_scale.expand_as(loc)], dim=1).view(len(x), 2 * K, *SIZE)


def parts():
    torch.manual_seed(0)
    return Free(K), LinearNet(0.5 * torch.randn(D, D), 0.3 * torch.randn(D))


def gaussian(base, flow):
    """The distribution of the logits: (A + S) u with u ~ N(mu, I)."""
    factor = flow.matrix.tril(-1) + torch.diag(flow.log_scale.exp())
    return MultivariateNormal(factor @ base.outputs.flatten(), factor @ factor.T)


IMAGE = torch.zeros(3, 1, *SIZE)
MASKS = torch.tensor([0, 1, 1, 0]).view(1, 1, *SIZE).expand(3, 1, *SIZE)


@torch.no_grad()
def test_the_density_of_a_draw_is_that_of_its_gaussian():
    base, flow = parts()
    logits, log_density = AutoregressiveFlowSSN(base, flow, train_draws=5).scored_logits(IMAGE)
    torch.testing.assert_close(log_density, gaussian(base, flow).log_prob(logits.flatten(2)))


@torch.no_grad()
def test_the_covariance_has_full_rank_and_is_the_one_of_the_flow():
    base, flow = parts()
    model, n = AutoregressiveFlowSSN(base, flow), 200_000
    logits = model.logits(model.encode(IMAGE[:1]), model.draw_noise(IMAGE[:1], n))[0].flatten(1)
    expected = gaussian(base, flow).covariance_matrix
    error = (expected.diag()[:, None] * expected.diag() + expected.square()).div(n).sqrt()
    assert ((logits.T.cov() - expected).abs() < 5 * error).all()


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.5, -0.5])
def test_the_entropy_is_that_of_the_gaussian_and_enters_with_its_sign(weight):
    base, flow = parts()
    model = AutoregressiveFlowSSN(base, flow, entropy_weight=weight, train_draws=20_000)
    terms = model.loss(IMAGE, MASKS)
    pixels = math.prod(SIZE)
    assert terms["entropy"].item() == pytest.approx(gaussian(base, flow).entropy().item() / pixels, abs=0.02)
    torch.testing.assert_close(terms["loss"], terms["nll"] - weight * terms["entropy"])
    torch.manual_seed(5)
    model.train_draws = 7
    nll = model.loss(IMAGE, MASKS)["nll"]
    torch.manual_seed(5)
    plain = AutoregressiveFlowSSN(base, flow, train_draws=7)
    torch.testing.assert_close(plain.loss(IMAGE, MASKS)["loss"], nll)


def test_a_positive_entropy_weight_widens_the_logits():
    scales = {}
    for weight in (0.0, 1.0):
        base, flow = parts()
        model = AutoregressiveFlowSSN(base, flow, entropy_weight=weight)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(100):
            optimiser.zero_grad()
            model.loss(IMAGE, MASKS)["loss"].backward()
            optimiser.step()
        scales[weight] = flow.log_scale.mean().item()
    assert scales[1.0] > scales[0.0] + 0.5


@torch.no_grad()
def test_the_dual_kl_is_zero_where_the_density_flow_is_the_inverse():
    """r normalises by (x - A' x) / s' with base N(mu', I); it is q when S'^-1 (I - A') = (A + S)^-1 and mu' = mu."""
    base, flow = parts()
    inverse = torch.linalg.inv(flow.matrix.tril(-1) + torch.diag(flow.log_scale.exp()))
    scale = 1 / inverse.diagonal()
    density = LinearNet(torch.eye(D) - torch.diag(scale) @ inverse, scale.log())
    model = DualFlowSSN(base, flow, density_base=base, density_flow=density, train_draws=50)
    terms = model.loss(IMAGE, MASKS)
    assert terms["kl"].abs() < 1e-4
    torch.testing.assert_close(terms["loss"], terms["kl"] - terms["log_likelihood"])


@torch.no_grad()
def test_the_dual_kl_is_that_of_two_gaussians():
    base, flow = parts()
    other, density = parts()
    with torch.no_grad():
        density.matrix.mul_(-0.3)
        density.log_scale.add_(0.2)
        other.outputs.add_(0.5)
    model = DualFlowSSN(base, flow, density_base=other, density_flow=density, train_draws=100_000)
    inverse = torch.linalg.inv(torch.diag((-density.log_scale).exp()) @ (torch.eye(D) - density.matrix.tril(-1)))
    r = MultivariateNormal(inverse @ other.outputs.flatten(), inverse @ inverse.T)
    expected = torch.distributions.kl_divergence(gaussian(base, flow), r).item() / math.prod(SIZE)
    assert model.loss(IMAGE[:1], MASKS[:1])["kl"].item() == pytest.approx(expected, rel=0.02)


@torch.no_grad()
def test_the_dual_likelihood_is_the_mean_over_draws():
    base, flow = parts()
    model = DualFlowSSN(base, flow, density_base=base, density_flow=flow, train_draws=4)
    torch.manual_seed(2)
    terms = model.loss(IMAGE, MASKS)
    torch.manual_seed(2)
    logits = model.logits(model.encode(IMAGE), model.draw_noise(IMAGE, 4))
    expected = -torch.stack([F.cross_entropy(logits[:, m], MASKS[:, 0]) for m in range(4)]).mean()
    torch.testing.assert_close(terms["log_likelihood"], expected)


def test_contradictory_options_are_refused():
    base, flow = parts()
    with pytest.raises(ValueError, match="volume-preserving flow keeps the entropy"):
        AutoregressiveFlowSSN(base, flow, kind="volume_preserving", entropy_weight=0.1)
    with pytest.raises(ValueError, match="base_std is 0"):
        AutoregressiveFlowSSN(base, flow, base_std=0)
    with pytest.raises(ValueError, match="base or density_base is None"):
        DualFlowSSN(None, flow, density_base=base, density_flow=flow)
    with pytest.raises(ValueError, match="the base has 7 outputs"):
        AutoregressiveFlowSSN(Free(7), flow).sample(IMAGE, 1)


def test_the_dual_model_hands_its_options_on():
    nets = [Free(K), nn.Conv2d(K, 2 * K, 1)]
    model = DualFlowSSN(
        *nets, density_base=Free(K), density_flow=nn.Conv2d(K, 2 * K, 1), base_std=0.5, kind="gated", train_draws=3
    )
    assert (model.base_std, model.train_draws) == (0.5, 3)
    assert (model.flow.kind, model.density_flow.kind) == ("gated", "gated")


def test_the_density_of_an_identity_is_that_of_its_base():
    torch.manual_seed(0)
    base = Free(2 * K)  # means and log deviations
    model = AutoregressiveFlowSSN(base, LinearNet(torch.zeros(D, D), torch.zeros(1, D)), num_classes=K, train_draws=3)
    logits, log_density = model.scored_logits(torch.zeros(1, 1, *SIZE))
    loc, log_scale = base.outputs.chunk(2, dim=1)
    expected = Normal(loc, log_scale.exp()).log_prob(logits[0]).flatten(1).sum(dim=1)
    torch.testing.assert_close(log_density[0], expected)
