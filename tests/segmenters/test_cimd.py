import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from monai_flowssn.networks import GaussianEncoder
from monai_flowssn.segmenters import AmbiguousDiffusion
from monai_flowssn.segmenters.cimd import linear_schedule, reverse_gaussian

T = 50


def kept(timesteps):
    """alpha_bar_t by the definition, t = 0 .. T, in doubles."""
    total, shares = 1.0, [1.0]
    for beta in torch.linspace(0.1 / timesteps, 20 / timesteps, timesteps, dtype=torch.float64).tolist():
        total *= 1 - beta
        shares.append(total)
    return torch.tensor(shares, dtype=torch.float64)


class Recorder(nn.Module):
    """A pixelwise network that remembers what it was given and what it returned."""

    def __init__(self, m, channels=1):
        super().__init__()
        torch.manual_seed(3)
        self.weights, self.seen = nn.Parameter(0.3 * torch.randn(2 * m, m + channels)), []

    def forward(self, x, t):
        out = torch.einsum("kc,bc...->bk...", self.weights, x) + t.view(-1, *(1,) * (x.ndim - 1))
        self.seen.append((x, t, out))
        return out


class Exact(nn.Module):
    """The noise that x_t has on average where all pixels of an image are 1 with probability pi, else 0."""

    def __init__(self, pi, timesteps):
        super().__init__()
        self.pi, self.shares = pi, kept(timesteps)

    def forward(self, x, t):
        alpha = self.shares[(t * (len(self.shares) - 1)).round().long()].view(-1, 1, 1, 1)
        x_t = x[:, :1].double()
        evidence = ((2 * alpha.sqrt() * x_t - alpha) / (2 * (1 - alpha))).sum(dim=(2, 3), keepdim=True)
        clean = torch.sigmoid(evidence + math.log(self.pi / (1 - self.pi)))
        noise = (x_t - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return torch.cat([noise, torch.zeros_like(noise)], dim=1).float()


class Nothing(nn.Module):
    """An encoder whose vectors are standard normal."""

    def forward(self, x):
        return x.new_zeros(len(x), 4)


def encoders(m=1):
    return tuple(GaussianEncoder(2, m + 1, 4, channels=(4,), convs=1) for _ in range(2))


def model(net, k=2, **options):
    prior, posterior = encoders(1 if k == 2 else k)
    return AmbiguousDiffusion(net, prior, posterior=posterior, num_classes=k, **{"timesteps": T, **options})


def exact(pi, timesteps, **options):
    return AmbiguousDiffusion(Exact(pi, timesteps), Nothing(), posterior=Nothing(), timesteps=timesteps, **options)


@pytest.mark.parametrize("timesteps", [21, 50, 1000])
def test_the_schedule_is_the_product_of_the_steps(timesteps):
    log_alpha = linear_schedule(timesteps)
    torch.testing.assert_close(log_alpha, kept(timesteps).log().float())
    if timesteps == 1000:
        assert -torch.expm1(log_alpha[1]).item() == pytest.approx(1e-4, rel=1e-5)
        assert -torch.expm1(log_alpha[-1] - log_alpha[-2]).item() == pytest.approx(0.02, rel=1e-4)


@pytest.mark.parametrize(("s", "t"), [(1, 2), (10, 11), (49, 50), (1, 50), (5, 30)])
def test_the_reverse_step_is_bayes_rule_for_every_stride(s, t):
    """x_s | x_0 and x_t | x_s are Gaussians: their product as a function of x_s, by precisions."""
    torch.manual_seed(0)
    shares, x_0, x_t = kept(T), torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    a, before = shares[t] / shares[s], shares[s]
    precision = 1 / (1 - before) + a / (1 - a)
    mean = (before.sqrt() * x_0 / (1 - before) + a.sqrt() * x_t / (1 - a)) / precision
    found, low, high = reverse_gaussian(x_0, x_t, shares[s].log(), shares[t].log())
    torch.testing.assert_close(found, mean)
    torch.testing.assert_close(low.exp(), 1 / precision)
    torch.testing.assert_close(high.exp(), 1 - a)


def test_the_step_to_the_mask_is_the_prediction_itself():
    shares, x = kept(T).log().float(), torch.randn(5)
    mean, low, _ = reverse_gaussian(x, torch.randn(5), shares[0], shares[1])
    torch.testing.assert_close(mean, x)
    assert low < math.log(1e-7)


@pytest.mark.parametrize("k", [2, 3])
def test_every_term_of_the_loss_is_that_of_torch_distributions(k):
    torch.manual_seed(0)
    m = 1 if k == 2 else k
    net = Recorder(m)
    diffusion = model(net, k, beta=0.5)
    image, masks = torch.randn(T, 1, 3, 2), torch.randint(0, k, (T, 1, 3, 2))
    with torch.no_grad():
        terms = diffusion.loss(image, masks)
        ((x, t, out),) = net.seen
        times = (t * T).round().long()
        assert sorted(times.tolist()) == list(range(1, T + 1))  # a batch of T sees every time
        y = masks.float() if k == 2 else torch.eye(k)[masks[:, 0]].movedim(-1, 1)
        alpha, before = (kept(T)[each].view(-1, 1, 1, 1) for each in (times, times - 1))
        x_t, predicted, v = x[:, :m].double(), out[:, :m].double(), out[:, m:].double()
        noise = (x_t - alpha.sqrt() * y) / (1 - alpha).sqrt()
        torch.testing.assert_close(terms["simple"].double(), (noise - predicted).square().mean(), rtol=1e-4, atol=0)

        beta = 1 - alpha / before
        tilde = beta * (1 - before) / (1 - alpha)
        later = times > 1

        def gaussian(clean, variance):
            mean = before.sqrt() * beta / (1 - alpha) * clean + (1 - beta).sqrt() * (1 - before) / (1 - alpha) * x_t
            return Normal(mean[later], variance[later].sqrt())

        guess = (x_t - (1 - alpha).sqrt() * predicted) / alpha.sqrt()
        share = (v + 1) / 2
        learnt = (share * beta.log() + (1 - share) * tilde.log()).exp()
        kl = kl_divergence(gaussian(y, tilde), gaussian(guess, learnt))
        torch.testing.assert_close(terms["vlb"].double(), kl.sum() / math.log(2) / y.numel(), rtol=1e-3, atol=0)

        q, p = (
            Normal(z[:, :2], z[:, 2:].exp())
            for z in (
                diffusion.posterior(torch.cat([y, image], dim=1)),
                diffusion.prior(torch.cat([out[:, :m], image], dim=1)),
            )
        )
        torch.testing.assert_close(terms["kl"], kl_divergence(q, p).sum(dim=1).mean())
        torch.testing.assert_close(terms["loss"], terms["simple"] + terms["vlb"] + 0.5 * terms["kl"])


def test_the_bound_teaches_the_variance_alone():
    net = Recorder(1)
    terms = model(net).loss(torch.randn(4, 1, 4, 4), torch.ones(4, 1, 4, 4))
    (gradient,) = torch.autograd.grad(terms["vlb"], net.weights, retain_graph=True)
    assert not gradient[0].any()
    assert gradient[1].any()
    (gradient,) = torch.autograd.grad(terms["simple"], net.weights)
    assert gradient[0].any()
    assert not gradient[1].any()


def test_far_predictions_of_the_variance_keep_the_loss_finite():
    class Far(nn.Module):
        def forward(self, x, t):
            return torch.cat([x[:, :1], torch.full_like(x[:, :1], -4.0)], dim=1)

    loss = model(Far()).loss(torch.zeros(T, 1, 2, 2), torch.ones(T, 1, 2, 2))["loss"]
    assert torch.isfinite(loss)


def test_without_its_weight_the_divergence_changes_nothing_and_no_random_number():
    def gradient(beta):
        torch.manual_seed(0)
        net = Recorder(1)
        diffusion = model(net, beta=beta)
        torch.manual_seed(1)
        terms = diffusion.loss(torch.randn(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
        terms["loss"].backward()
        return terms, net.weights.grad, diffusion.prior.head.weight.grad

    (plain, plain_net, plain_encoder), (full, full_net, full_encoder) = gradient(0.0), gradient(1.0)
    for name in ("simple", "vlb", "kl"):
        assert torch.equal(plain[name], full[name])
    torch.testing.assert_close(plain["loss"], plain["simple"] + plain["vlb"])
    assert not plain_encoder.any()
    assert full_encoder.any()
    assert (plain_net - full_net).abs().max() > 1e-4  # through the predicted noise


def test_frozen_encoders_hand_the_gradient_on():
    net = Recorder(1)
    diffusion = model(net, train_encoders=False)
    assert {name.partition(".")[0] for name, p in diffusion.named_parameters() if p.requires_grad} == {"net"}
    terms = diffusion.loss(torch.randn(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
    (gradient,) = torch.autograd.grad(terms["kl"], net.weights)
    assert gradient[0].any()


@torch.no_grad()
def test_a_draw_is_ddim_by_its_formula():
    net = Recorder(1)
    diffusion, image = model(net, steps=4), torch.randn(1, 1, 5, 5)
    noise = diffusion.draw_noise(image, 1)
    draw = diffusion.sample(image, 1, noise)[0, 0]
    shares, times = kept(T), [round(T - i * (T - 1) / 3) for i in range(4)]
    assert [(t * T).round().int().item() for _, t, _ in net.seen] == times
    x = noise[0][0].double()
    for (seen, _, out), t, s in zip(net.seen, times, [*times[1:], 0], strict=True):
        torch.testing.assert_close(seen[:, :1].double(), x, rtol=1e-4, atol=1e-4)
        clean = ((x - (1 - shares[t]).sqrt() * out[:, :1]) / shares[t].sqrt()).clamp(0, 1)
        direction = (x - shares[t].sqrt() * clean) / (1 - shares[t]).sqrt()
        x = shares[s].sqrt() * clean + (1 - shares[s]).sqrt() * direction
    torch.testing.assert_close(draw[1].double(), x[0, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(draw[0], 1 - draw[1])


@torch.no_grad()
@pytest.mark.parametrize(("ancestral", "steps"), [(False, 25), (False, 200), (True, 200)])
def test_with_the_exact_noise_whole_masks_have_their_probability(ancestral, steps):
    torch.manual_seed(0)
    n, pi = 1000, 0.25
    draws = exact(pi, 200, ancestral=ancestral, steps=steps).sample(torch.zeros(1, 1, 4, 4), n)[0, :, 1].flatten(1)
    assert ((draws < 0.05) | (draws > 0.95)).float().mean() > 0.97
    assert (draws.round() == draws[:, :1].round()).all(dim=1).float().mean() > 0.97
    share = (draws.mean(dim=1) > 0.5).float().mean().item()
    assert share == pytest.approx(pi, abs=4 * math.sqrt(pi * (1 - pi) / n) + 0.02)


@torch.no_grad()
@pytest.mark.parametrize("ancestral", [False, True])
@pytest.mark.parametrize("k", [2, 3])
def test_a_crop_of_the_noise_is_a_crop_of_the_draw(ancestral, k):
    diffusion = model(Recorder(1 if k == 2 else k), k, ancestral=ancestral, steps=8)
    image = torch.randn(2, 1, 6, 5)
    (noise,) = diffusion.draw_noise(image, 4)
    whole = diffusion.sample(image, 4, (noise,))
    part = diffusion.sample(image[..., 1:4, 2:], 4, (noise[..., 1:4, 2:],))
    torch.testing.assert_close(part, whole[..., 1:4, 2:])


@torch.no_grad()
def test_an_ancestral_step_has_the_learnt_variance():
    class Still(nn.Module):
        def forward(self, x, t):
            return torch.cat([torch.zeros_like(x[:, :1]), torch.full_like(x[:, :1], 0.5)], dim=1)

    torch.manual_seed(0)
    diffusion, seen = model(Still(), ancestral=True, steps=2), []
    diffusion.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, :1].double()))
    diffusion.sample(torch.zeros(1, 1, 100, 100), 1)
    start, after = seen
    torch.testing.assert_close(start.std(), torch.tensor(1.0).double(), atol=0.03, rtol=0)
    shares = kept(T)
    beta = 1 - shares[T] / shares[1]
    tilde = beta * (1 - shares[1]) / (1 - shares[T])
    clean = (start / shares[T].sqrt()).clamp(0, 1)
    mean = (
        shares[1].sqrt() * beta / (1 - shares[T]) * clean
        + (1 - beta).sqrt() * (1 - shares[1]) / (1 - shares[T]) * start
    )
    expected = (0.75 * beta.log() + 0.25 * tilde.log()) / 2
    assert (after - mean).std().log().item() == pytest.approx(expected.item(), abs=0.03)


def test_the_state_is_the_networks_alone():
    assert {name.partition(".")[0] for name in model(Recorder(1)).state_dict()} == {"net", "prior", "posterior"}


@pytest.mark.parametrize(("timesteps", "steps"), [(20, None), (1000, 1), (1000, 1001), (50, 0)])
def test_wrong_numbers_of_steps_are_refused(timesteps, steps):
    with pytest.raises(ValueError, match="pass timesteps > 20 and 2 <= steps <= timesteps"):
        model(Recorder(1), timesteps=timesteps, steps=steps)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"beta is -1\.0; the weight of the KL is at least 0"):
        model(Recorder(1), beta=-1.0)


def test_a_network_with_another_number_of_outputs_is_refused():
    class Two(nn.Module):
        def forward(self, x, t):
            return x[:, :2]

    with pytest.raises(ValueError, match="the network has 2 outputs; 3 classes need 6"):
        model(Two(), 3).loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
