"""The terms of the bound against the walk written out, closed forms where the flows are the identity, and the bound itself."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from monai_flowssn.networks import JointDecoder, VectorLadder
from monai_flowssn.segmenters import JointProbabilisticUNet

L = 4
IMAGE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
MASKS = torch.randint(0, 3, (2, 1, 8, 8), generator=torch.Generator().manual_seed(6))


def model(k=3, channels=(4, 6, 8), *, flows=True, **options):
    torch.manual_seed(0)
    levels = {"channels": channels, "latent_dim": L, "growth": 3}
    prior, posterior = VectorLadder(2, 1, **levels), VectorLadder(2, 1 + k, **levels)
    net = JointProbabilisticUNet(prior, posterior, decoder=JointDecoder(2, 1, k, **levels), num_classes=k, **options)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if flows or "flows" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def fixed(net, monkeypatch, image=IMAGE):
    noise = net.draw_noise(image, 1)
    monkeypatch.setattr(net, "draw_noise", lambda image, n: noise)
    return [part[:, 0] for part in noise]


def forward(flow, w):
    """The flow by its definition: halves that move each other, then a scale."""
    half = L // 2
    for i, shift in enumerate(flow.shifts):
        first, second = w[:, :half], w[:, half:]
        w = torch.cat([first, second + shift(first)] if i % 2 == 0 else [first + shift(second), second], dim=1)
    return w * flow.log_scale.exp()


def backward(flow, z):
    half, w = L // 2, z * (-flow.log_scale).exp()
    for i, shift in reversed(list(enumerate(flow.shifts))):
        first, second = w[:, :half], w[:, half:]
        w = torch.cat([first, second - shift(first)] if i % 2 == 0 else [first - shift(second), second], dim=1)
    return w


def gaussian(ladder, features, level, coarser):
    """Mean and standard deviation of a level from the parts of the ladder."""
    if coarser is None:
        h = ladder.coarsest(features[-1])
    else:
        seen = features[level + 1]
        h = ladder.below[level](torch.cat([seen, coarser[:, :, None, None].expand(-1, -1, *seen.shape[2:])], dim=1))
    mean, log_std = h.mean(dim=(2, 3)).chunk(2, dim=1)
    return Normal(mean, log_std.exp())


@torch.no_grad()
@pytest.mark.parametrize("flows", [True, False])
def test_the_loss_is_the_bound_with_every_latent_drawn_once(flows, monkeypatch):
    net = model(flows=flows, beta=2.0, image_weight=0.3)
    noise = fixed(net, monkeypatch)
    terms = net.loss(IMAGE, MASKS)

    y = torch.eye(3)[MASKS[:, 0]].movedim(-1, 1)
    seen_by_q, seen_by_p = net.posterior(torch.cat([IMAGE, y], dim=1)), net.prior(IMAGE)
    z, latents, kl = None, [], 0
    for level in (2, 1, 0):
        q, p = gaussian(net.posterior, seen_by_q, level, z), gaussian(net.prior, seen_by_p, level, z)
        w = q.mean + q.stddev * noise[level]
        z = forward(net.posterior_flows[level], w)
        log_q = q.log_prob(w).sum(dim=1) - net.posterior_flows[level].log_scale.sum()
        log_p = p.log_prob(forward(net.prior_flows[level], z)).sum(dim=1) + net.prior_flows[level].log_scale.sum()
        kl = kl + (log_q - log_p).mean()
        latents.insert(0, z)
    image, logits = net.decoder(latents, seen_by_p)
    cross_entropy, difference = F.cross_entropy(logits, MASKS[:, 0]), (image - IMAGE).abs().mean()
    torch.testing.assert_close(terms["kl"], kl, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy)
    torch.testing.assert_close(terms["image"], difference)
    torch.testing.assert_close(terms["loss"], cross_entropy + 0.3 * difference + 2.0 * kl / 3 / 64)


@torch.no_grad()
def test_without_flows_the_sampled_kl_of_a_level_is_the_closed_form_on_average():
    net = model(channels=(4,), flows=False)
    y = torch.eye(3)[MASKS[:, 0]].movedim(-1, 1)
    q = gaussian(net.posterior, net.posterior(torch.cat([IMAGE, y], dim=1)), 0, None)
    p = gaussian(net.prior, net.prior(IMAGE), 0, None)
    exact = kl_divergence(Independent(q, 1), Independent(p, 1)).mean()
    samples = torch.stack([net.loss(IMAGE, MASKS)["kl"] for _ in range(2000)])
    assert abs(samples.mean() - exact) < 4 * samples.std() / math.sqrt(len(samples))


@torch.no_grad()
def test_the_negative_loss_is_below_the_log_likelihood():
    net = model(beta=3.0, image_weight=0.0)  # beta = L: the bound of the mask alone
    losses = torch.stack([net.loss(IMAGE, MASKS)["loss"] for _ in range(300)])
    draws = net.sample(IMAGE, 20_000)  # (B, N, K, *S)
    p = draws.gather(2, MASKS[:, None].expand(-1, draws.shape[1], 1, -1, -1))
    log_likelihood = (p.log().flatten(2).sum(dim=2).logsumexp(dim=1) - math.log(draws.shape[1])).mean() / 64
    assert losses.mean() > -log_likelihood - 4 * losses.std() / math.sqrt(len(losses))


def walk(net, noise, features):
    z, latents, gaussians = None, [], []
    for level in (2, 1, 0):
        p = gaussian(net.prior, features, level, z)
        z = backward(net.prior_flows[level], p.mean + p.stddev * noise[level])
        latents.insert(0, z)
        gaussians.insert(0, p)
    return latents, gaussians


@torch.no_grad()
def test_a_draw_walks_down_its_own_latents():
    net = model()
    noise = [part[:, 0] for part in net.draw_noise(IMAGE, 1)]
    features = net.prior(IMAGE)
    latents, _ = walk(net, noise, features)
    expected = net.decoder(latents, features)[1].softmax(dim=1)
    torch.testing.assert_close(net.sample(IMAGE, 1, tuple(part[:, None] for part in noise))[:, 0], expected)


@torch.no_grad()
def test_independent_levels_are_drawn_from_the_walk_through_the_means():
    net = model(independent_levels=True)
    noise = [part[:, 0] for part in net.draw_noise(IMAGE, 1)]
    features = net.prior(IMAGE)
    _, gaussians = walk(net, [torch.zeros_like(part) for part in noise], features)
    latents = [backward(net.prior_flows[level], p.mean + p.stddev * noise[level]) for level, p in enumerate(gaussians)]
    expected = net.decoder(latents, features)[1].softmax(dim=1)
    torch.testing.assert_close(net.sample(IMAGE, 1, tuple(part[:, None] for part in noise))[:, 0], expected)


@torch.no_grad()
def test_the_noise_of_every_level_changes_the_draw():
    net = model()
    noise = net.draw_noise(IMAGE, 1)
    draw = net.sample(IMAGE, 1, noise)
    for changed in range(3):
        other = tuple(-part if level == changed else part for level, part in enumerate(noise))
        assert (net.sample(IMAGE, 1, other) - draw).abs().max() > 1e-4


def test_the_default_is_the_published_network():
    with torch.device("meta"):
        ladder = VectorLadder(2, 1)
        shapes = [tuple(part.shape) for part in ladder(torch.empty(2, 1, 128, 128))]
    coarse = [(2, 64, 64, 64), (2, 128, 32, 32), (2, 192, 16, 16), (2, 192, 8, 8), (2, 192, 8, 8)]
    assert shapes == [(2, 32, 128, 128), *coarse]
    assert ladder.latent_dim == 8


@torch.no_grad()
def test_draws_do_not_need_the_posterior():
    net = model()
    noise = net.draw_noise(IMAGE, 2)
    before = net.sample(IMAGE, 2, noise)
    for parameter in [*net.posterior.parameters(), *net.posterior_flows.parameters()]:
        parameter.add_(1.0)
    assert torch.equal(net.sample(IMAGE, 2, noise), before)


@torch.no_grad()
def test_an_overflowing_log_deviation_is_clamped():
    net = model()
    net.prior.coarsest[-1].bias[L:] = 1e4
    net.posterior.coarsest[-1].bias[L:] = -1e4
    assert torch.isfinite(torch.stack(list(net.loss(IMAGE, MASKS).values()))).all()


def test_two_modes_are_learnt():
    """Half of the raters mark everything, half nothing: the draws must do the same, which no single map can."""
    net = model(k=2, channels=(8, 8), beta=2.0, flows=False).train()
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)]).long().expand(8, 2, 8, 8)
    image = torch.randn(8, 1, 8, 8)
    for _ in range(150):
        optimiser.zero_grad()
        net.loss(image, masks)["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        draws = net.eval().sample(image[:4], 100)[:, :, 1].flatten(2).flatten(0, 1)
    share = (draws.mean(dim=1) > 0.5).float().mean().item()
    assert 0.3 < share < 0.7
    assert (draws.sub(0.5).abs() > 0.4).float().mean() > 0.6


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"image_weight": -0.1}])
def test_negative_weights_are_refused(options):
    with pytest.raises(ValueError, match="both weights are at least 0"):
        model(**options)


def test_ladders_that_differ_are_refused():
    prior, posterior = VectorLadder(2, 1, channels=(4, 4)), VectorLadder(2, 3, channels=(4, 4, 4))
    with pytest.raises(ValueError, match=r"are \(2, 8\) in the prior, \(3, 8\) in the posterior: pass the same"):
        JointProbabilisticUNet(prior, posterior, decoder=JointDecoder(2, 1, 2, channels=(4, 4)))


def test_a_decoder_with_another_number_of_outputs_is_refused():
    net = model()
    net.num_classes = 2
    with pytest.raises(ValueError, match="the decoder has 3 outputs; it needs num_classes = 2"):
        net.sample(IMAGE, 1)
