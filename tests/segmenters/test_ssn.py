"""The distribution of the logits against the Gaussian it must be, and the likelihood against its closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import LowRankMultivariateNormal
from torch.nn import functional as F

from monai_flowssn.segmenters import SSN

SIZE, K, R = (2, 3), 2, 3
D = K * 6


class Free(nn.Module):
    """The same outputs for every image."""

    def __init__(self, channels, size=SIZE, scale=1.0):
        super().__init__()
        self.outputs = nn.Parameter(scale * torch.randn(1, channels, *size))

    def forward(self, image):
        return self.outputs.expand(len(image), *self.outputs.shape[1:])


def ssn(**options):
    torch.manual_seed(0)
    return SSN(Free(K * (2 + R)), num_classes=K, rank=R, **options)


@torch.no_grad()
def test_the_logits_have_the_mean_and_covariance_of_the_low_rank_gaussian():
    model, n = ssn(), 200_000
    image = torch.zeros(1, 1, *SIZE)
    mean, deviation, factors = model.encode(image)
    logits = model.logits((mean, deviation, factors), model.draw_noise(image, n))[0].flatten(1)  # (n, D)
    expected = LowRankMultivariateNormal(mean.flatten(), factors[0].flatten(1).T, deviation.flatten().square())
    covariance = expected.covariance_matrix
    error = (covariance.diag()[:, None] * covariance.diag() + covariance.square()).div(n).sqrt()
    assert ((logits.T.cov() - covariance).abs() < 5 * error).all()
    assert ((logits.mean(dim=0) - expected.mean).abs() < 5 * (covariance.diag() / n).sqrt()).all()


@torch.no_grad()
def test_the_loss_is_the_monte_carlo_likelihood_written_out():
    model = ssn(train_draws=4)
    image, masks = torch.zeros(2, 1, *SIZE), torch.randint(0, K, (2, 1, *SIZE))
    torch.manual_seed(3)
    loss = model.loss(image, masks)["loss"]
    torch.manual_seed(3)
    logits = model.logits(model.encode(image), model.draw_noise(image, 4))
    total = 0.0
    for b in range(2):
        likelihoods = []
        for m in range(4):
            p = logits[b, m].double().softmax(dim=0)
            likelihoods.append(math.prod(p[masks[b, 0, x, y], x, y].item() for x in range(2) for y in range(3)))
        total -= math.log(sum(likelihoods) / 4) / 6
    assert loss.item() == pytest.approx(total / 2, rel=1e-5)


@torch.no_grad()
def test_the_likelihood_of_two_correlated_pixels_is_that_of_quadrature():
    """Two pixels share one factor: p(1, 1) = E[sigmoid(c e)^2], a one-dimensional integral."""
    net = Free(2 * 3, size=(1, 2))
    c = 2.0
    net.outputs.zero_()
    net.outputs[:, 2:4] = -30.0  # no noise of their own
    net.outputs[:, 5] = c  # class 1 of both pixels moves with the factor
    model = SSN(net, rank=1, train_draws=100_000)
    e = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    expected = torch.trapezoid(torch.sigmoid(c * e) ** 2 * (-(e**2) / 2).exp() / math.sqrt(2 * math.pi), e)
    torch.manual_seed(0)
    loss = model.loss(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2).long())["loss"]
    assert math.exp(-2 * loss.item()) == pytest.approx(expected.item(), rel=0.01)
    assert expected > 0.25 * 1.2  # more than independent pixels


def test_warm_up_learns_the_mean_alone_and_is_remembered():
    model = ssn(warm_up=1).train()
    image, masks = torch.zeros(1, 1, *SIZE), torch.ones(1, 1, *SIZE).long()
    terms = model.loss(image, masks)
    with torch.no_grad():
        mean = model.encode(image)[0]
        torch.testing.assert_close(terms["loss"], F.cross_entropy(mean, masks[:, 0]))
    terms["loss"].backward()
    gradient = model.net.outputs.grad
    assert gradient[:, :K].any()
    assert not gradient[:, 2 * K :].any()
    again = ssn(warm_up=1).train()
    again.load_state_dict(model.state_dict())
    again.loss(image, masks)["loss"].backward()
    assert again.net.outputs.grad[:, 2 * K :].any()


def test_antithetic_noise_comes_in_pairs_in_training_alone():
    model, image = ssn(antithetic=True, train_draws=6), torch.zeros(2, 1, *SIZE)
    for part in model.training_noise(image):
        torch.testing.assert_close(part[:, :3], -part[:, 3:])
        assert part[:, 0].ne(part[:, 1]).all()
    for part in model.draw_noise(image, 6):
        assert part[:, :3].ne(-part[:, 3:]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"antithetic": True, "train_draws": 3}, "even"),
        ({"train_draws": 0}, "train_draws is 0"),
        ({"warm_up": -1}, "warm_up -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SSN(Free(10), **options)


def test_a_network_of_other_outputs_is_refused():
    with pytest.raises(ValueError, match=r"has 7 outputs; it needs num_classes \* \(2 \+ rank\) = 24"):
        SSN(Free(7)).sample(torch.zeros(1, 1, *SIZE), 1)


def test_the_noise_of_a_pixel_has_its_own_variance_and_no_other():
    """Without factors the covariance is the diagonal exp(log variance) + 1e-5, and the logits are mean + deviation * noise."""
    model = ssn()
    with torch.no_grad():
        model.net.outputs[:, 2 * K :] = 0
    mean, log_variance = model.net.outputs[0, :K], model.net.outputs[0, K : 2 * K]
    code, noise = model.encode(torch.zeros(1, 1, *SIZE)), model.draw_noise(torch.zeros(1, 1, *SIZE), 4)
    torch.testing.assert_close(code[1][0], (log_variance.exp() + 1e-5).sqrt())
    torch.testing.assert_close(model.logits(code, noise)[0], mean + (log_variance.exp() + 1e-5).sqrt() * noise[1][0])
    with torch.no_grad():
        model.net.outputs[:, K : 2 * K] = 50  # is held at 10
    assert model.encode(torch.zeros(1, 1, *SIZE))[1].max().item() == pytest.approx(math.exp(5))


def test_one_training_draw_is_enough_and_none_is_not():
    assert ssn(train_draws=1).train_draws == 1
    with pytest.raises(ValueError, match="train_draws"):
        ssn(train_draws=0)
