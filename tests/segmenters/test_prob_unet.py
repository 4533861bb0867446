"""The terms of the evidence lower bound against torch.distributions, and the bound itself against the likelihood."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from monai_flowssn.annotations import pick_rater
from monai_flowssn.flows import GlowFlow, PlanarFlow, RadialFlow
from monai_flowssn.networks import GaussianEncoder, LatentHead, PlainUNet
from monai_flowssn.segmenters import ProbabilisticUNet

L, CONTEXT = 4, 7


def model(flow=None, **options):
    torch.manual_seed(0)
    channels = (4, 8)
    outputs = 2 * L + (CONTEXT if flow else 0)
    return ProbabilisticUNet(
        PlainUNet(2, 1, 5, channels=channels, convs=1),
        GaussianEncoder(2, 1, 2 * L, channels=channels, convs=1),
        posterior=GaussianEncoder(2, 3, outputs, channels=channels, convs=1),
        head=LatentHead(2, 5, L, 2, width=6),
        flow=flow(L, CONTEXT, steps=2, hidden=8) if flow else None,
        **options,
    )


IMAGE, MASKS = torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 1, 8, 8))


@torch.no_grad()
def test_without_a_flow_the_kl_is_the_closed_form():
    net = model(beta=0.5)
    terms = net.loss(IMAGE, MASKS)
    (mu_p, s_p), (mu_q, s_q) = (
        out.chunk(2, dim=1)
        for out in (net.prior(IMAGE), net.posterior(torch.cat([IMAGE, F.one_hot(MASKS[:, 0], 2).movedim(-1, 1)], 1)))
    )
    kl = s_p - s_q + ((2 * s_q).exp() + (mu_q - mu_p) ** 2) / (2 * (2 * s_p).exp()) - 0.5
    torch.testing.assert_close(terms["kl"], kl.sum(dim=1).mean())
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.5 * terms["kl"] / 64)


class Identity(nn.Module):
    def forward(self, context):
        return []


@torch.no_grad()
def test_with_the_identity_as_flow_the_monte_carlo_kl_is_the_closed_form_on_average():
    flowing = model(PlanarFlow)
    flowing.flow = Identity()
    prior, posterior = flowing.prior_distribution(IMAGE), flowing.posterior_distribution(IMAGE, MASKS[:, 0])
    z = posterior.rsample((20_000,))
    samples = posterior.log_prob(z) - prior.log_prob(z)  # (20000, B)
    exact = kl_divergence(posterior.base_dist, prior)
    error = samples.std(dim=0) / math.sqrt(len(samples))
    assert ((samples.mean(dim=0) - exact).abs() < 4 * error).all()


@torch.no_grad()
@pytest.mark.parametrize("flow", [PlanarFlow, RadialFlow, GlowFlow])
def test_the_kl_sample_scores_q0_at_z0_and_the_prior_at_zk(flow):
    net = model(flow)

    def start_over():
        torch.manual_seed(3)
        pick_rater(MASKS)  # as the loss does before it draws z

    start_over()
    posterior = net.posterior_distribution(IMAGE, MASKS[:, 0])
    z = posterior.rsample()
    start_over()
    out = net.posterior(torch.cat([IMAGE, F.one_hot(MASKS[:, 0], 2).movedim(-1, 1)], dim=1))
    mean, log_deviation = out[:, : 2 * L].chunk(2, dim=1)
    q0 = Independent(Normal(mean, log_deviation.exp()), 1)
    start = z_k = q0.rsample()
    log_det = 0
    for transform in net.flow(out[:, 2 * L :]):
        after = transform(z_k)
        log_det = log_det + transform.log_abs_det_jacobian(z_k, after)
        z_k = after
    torch.testing.assert_close(z, z_k)
    torch.testing.assert_close(posterior.log_prob(z), q0.log_prob(start) - log_det)
    kl = q0.log_prob(start) - log_det - net.prior_distribution(IMAGE).log_prob(z_k)
    torch.manual_seed(3)
    torch.testing.assert_close(net.loss(IMAGE, MASKS)["kl"], kl.mean())


@torch.no_grad()
@pytest.mark.parametrize("flow", [None, PlanarFlow, GlowFlow])
def test_the_negative_loss_is_below_the_log_likelihood(flow):
    """E_q[...] - KL <= log p(y | x), which many draws of the prior estimate."""
    net = model(flow)
    losses = torch.stack([net.loss(IMAGE, MASKS)["loss"] for _ in range(500)])
    draws = net.sample(IMAGE, 20_000)  # (B, N, K, *S)
    p = draws.gather(2, MASKS[:, None].expand(-1, draws.shape[1], 1, -1, -1))
    log_likelihood = (p.log().flatten(2).sum(dim=2).logsumexp(dim=1) - math.log(draws.shape[1])).mean() / 64
    assert losses.mean() > -log_likelihood - 4 * losses.std() / math.sqrt(len(losses))


@torch.no_grad()
def test_the_latent_vector_of_a_draw_is_of_the_prior():
    net = model()
    prior = net.prior_distribution(IMAGE)
    noise = torch.randn(2, 3, L)
    z = prior.mean[:, None] + prior.stddev[:, None] * noise
    projected = net.head.project(net.features(IMAGE))
    expected = torch.stack([net.head(projected, z[:, n]).softmax(dim=1) for n in range(3)], dim=1)
    torch.testing.assert_close(net.sample(IMAGE, 3, (noise,)), expected)


@torch.no_grad()
def test_an_overflowing_log_deviation_is_clamped():
    net = model()
    net.prior.head.bias[L:] = 1e4
    net.posterior.head.bias[L:] = -1e4
    assert torch.isfinite(torch.stack(list(net.loss(IMAGE, MASKS).values()))).all()


def test_a_posterior_without_context_for_its_flow_is_refused():
    net = model(PlanarFlow)
    net.posterior = model().posterior
    with pytest.raises(ValueError, match="needs context beyond the 8 of q"):
        net.loss(IMAGE, MASKS)


def test_two_modes_are_learnt():
    """Half of the raters mark everything, half nothing: the draws must do the same, which no single map can."""
    net = model()
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)]).long().expand(8, 2, 8, 8)
    image = torch.zeros(8, 1, 8, 8)
    for _ in range(300):
        optimiser.zero_grad()
        net.loss(image, masks)["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        draws = net.sample(image[:1], 400)[0, :, 1].flatten(1)  # foreground
    share = (draws.mean(dim=1) > 0.5).float().mean().item()
    assert 0.35 < share < 0.65
    assert (draws.sub(0.5).abs() > 0.4).float().mean() > 0.6  # one map for all would be 0.5 everywhere
