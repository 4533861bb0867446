import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from monai_flowssn.segmenters.ccdm import CategoricalDiffusion, cosine_schedule, late_cosine_schedule, log_reverse

T = 6


def betas(timesteps):
    def f(s):
        return math.cos((s / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - f(s) / f(s - 1), 0.999) for s in range(1, timesteps + 1)]


def transitions(k, s, t):
    """The product of the transition matrices of the steps s + 1 .. t of T: rows are x_s, columns x_t."""
    total = torch.eye(k, dtype=torch.float64)
    for beta in betas(T)[s:t]:
        total = total @ ((1 - beta) * torch.eye(k, dtype=torch.float64) + beta / k)
    return total


def bayes(k, s, t):
    """q(x_s = j | x_t = i, x_0 = c) by enumeration: (x_t, x_0, x_s)."""
    joint = torch.einsum("cj,ji->icj", transitions(k, 0, s), transitions(k, s, t))
    return joint / joint.sum(dim=2, keepdim=True)


def pixel(values):
    """(..., K) -> (B, K, 1, 1)."""
    return values.reshape(-1, values.shape[-1])[..., None, None]


class ExactPosterior(nn.Module):
    """log p(x_0 = c | x_t) of pixels that are independent, P(x_0 = c) = prior[c]: what training would learn."""

    def __init__(self, prior, timesteps):
        super().__init__()
        self.prior, self.alpha_bar = torch.tensor(prior), cosine_schedule(timesteps)

    def forward(self, x, t):
        k = len(self.prior)
        alpha = self.alpha_bar[(t * (len(self.alpha_bar) - 1)).round().long()].view(-1, 1, 1, 1)
        return self.prior.log().view(1, -1, 1, 1) + (alpha * x[:, :k] + (1 - alpha) / k).log()


class Twins(nn.Module):
    """The marginals of the exact posterior of two classes where all pixels of an image have the same, 1 with probability pi."""

    def __init__(self, pi, timesteps):
        super().__init__()
        self.pi, self.alpha_bar = pi, cosine_schedule(timesteps)

    def forward(self, x, t):
        alpha = self.alpha_bar[(t * (len(self.alpha_bar) - 1)).round().long()].view(-1, 1, 1, 1)
        evidence = (alpha * x[:, :2] + (1 - alpha) / 2).log().sum(dim=(2, 3), keepdim=True)
        prior = torch.tensor([1 - self.pi, self.pi]).log().view(1, 2, 1, 1)
        return (prior + evidence).expand(-1, -1, *x.shape[2:])


class Recorder(nn.Module):
    """A pixelwise network that remembers what it was given."""

    def __init__(self, k, channels=1):
        super().__init__()
        torch.manual_seed(3)
        self.k, self.weights, self.seen = k, torch.randn(k, k + channels), []

    def forward(self, x, t):
        self.seen.append((x, t))
        return torch.einsum("kc,bc...->bk...", self.weights, x) + t.view(-1, *(1,) * (x.ndim - 1))


def exact(prior, timesteps=250, **options):
    net = ExactPosterior(prior, timesteps)
    return CategoricalDiffusion(net, num_classes=len(prior), timesteps=timesteps, **options)


@pytest.mark.parametrize("timesteps", [1, 2, 10, 250])
def test_the_schedule_is_the_product_of_the_steps(timesteps):
    kept, expected = 1.0, [1.0]
    for beta in betas(timesteps):
        kept *= 1 - beta
        expected.append(kept)
    torch.testing.assert_close(cosine_schedule(timesteps), torch.tensor(expected))
    assert cosine_schedule(timesteps)[-1] <= 1.001e-3


def test_the_late_schedule_is_that_of_the_step_before():
    """f((t - 1) / T), the numbers of the public code for t = 1 .. 4, T = 4, computed by it."""
    published = torch.tensor([1.0, 0.9998446, 0.8468806, 0.4937669, 0.1442496])
    torch.testing.assert_close(late_cosine_schedule(4), published, atol=1e-6, rtol=0)
    late, plain = late_cosine_schedule(250), cosine_schedule(250)
    torch.testing.assert_close(late[2:-1] / late[1], plain[1:-2], atol=1e-6, rtol=0)


def test_the_schedule_is_the_one_that_is_given():
    model = CategoricalDiffusion(nn.Identity(), timesteps=4, schedule=late_cosine_schedule)
    assert torch.equal(model.alpha_bar, late_cosine_schedule(4))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_marginals_are_the_product_of_the_transition_matrices(k):
    for t, alpha in enumerate(cosine_schedule(T).tolist()):
        closed = alpha * torch.eye(k, dtype=torch.float64) + (1 - alpha) / k
        torch.testing.assert_close(transitions(k, 0, t), closed, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_reverse_step_of_a_known_class_is_bayes_rule_for_every_stride(k):
    alpha = cosine_schedule(T).double()
    x_t, x_0 = (pixel(torch.stack(each)).double() for each in zip(*product(torch.eye(k), repeat=2), strict=True))
    for t in range(1, T + 1):
        for s in range(t):
            closed = log_reverse(x_t, x_0.log(), alpha[s], alpha[t]).exp()
            torch.testing.assert_close(closed, pixel(bayes(k, s, t)), rtol=1e-4, atol=1e-7)


def test_the_reverse_step_of_a_distribution_is_the_mixture_over_classes():
    torch.manual_seed(0)
    k, alpha = 4, cosine_schedule(T).double()
    p0 = torch.randn(k, k, dtype=torch.float64).softmax(dim=1)  # one for each x_t
    for s, t in ((0, 1), (1, 2), (4, 5), (0, 6), (2, 6)):
        mixture = torch.einsum("icj,ic->ij", bayes(k, s, t), p0)
        closed = log_reverse(pixel(torch.eye(k).double()), pixel(p0).log(), alpha[s], alpha[t]).exp()
        torch.testing.assert_close(closed, pixel(mixture), rtol=1e-4, atol=1e-7)


def test_the_last_step_is_the_prediction_itself():
    torch.manual_seed(0)
    alpha, p0 = cosine_schedule(T), torch.randn(5, 3, 2, 2).softmax(dim=1)
    x_t = F.one_hot(torch.randint(0, 3, (5, 2, 2)), 3).movedim(-1, 1).float()
    torch.testing.assert_close(log_reverse(x_t, p0.log(), alpha[0], alpha[1]).exp(), p0)


@pytest.mark.parametrize("k", [2, 3])
def test_the_loss_is_the_divergence_of_torch_distributions(k):
    torch.manual_seed(0)
    net = Recorder(k)
    model = CategoricalDiffusion(net, num_classes=k, timesteps=T)
    image, masks = torch.randn(T, 1, 3, 2), torch.randint(0, k, (T, 1, 3, 2))
    loss = model.loss(image, masks)["loss"]
    ((x, t),) = net.seen
    times = (t * T).round().long().tolist()
    assert sorted(times) == list(range(1, T + 1))  # a batch of T sees every time
    prediction = net(x, t).softmax(dim=1).movedim(1, -1).double()
    total = 0.0
    for b, time in enumerate(times):
        posterior = bayes(k, time - 1, time)[x[b, :k].argmax(dim=0)]  # (*S, x_0, x_s)
        target = torch.take_along_dim(posterior, masks[b, 0][..., None, None], dim=2)[..., 0, :]
        mixture = torch.einsum("...cj,...c->...j", posterior, prediction[b])
        total += kl_divergence(Categorical(target), Categorical(mixture)).mean().item() / T
    assert loss.item() == pytest.approx(T * total, rel=1e-4)


def test_with_the_exact_posterior_the_loss_is_the_entropy_of_the_data():
    torch.manual_seed(0)
    cases, pi = 4000, 0.25
    masks = (torch.arange(cases).view(-1, 1, 1, 1) % 4 == 0).long().expand(-1, -1, 6, 6)
    image = torch.zeros(cases, 1, 6, 6)

    def loss(prior):
        torch.manual_seed(1)
        return exact(prior, 20).loss(image, masks)["loss"].item()

    entropy = -pi * math.log(pi) - (1 - pi) * math.log(1 - pi)
    assert loss([0.75, 0.25]) == pytest.approx(entropy, rel=0.02)
    assert loss([0.75, 0.25]) < min(loss([0.7, 0.3]), loss([0.8, 0.2]))


def test_the_loss_and_its_gradient_survive_sure_predictions():
    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1e4))

        def forward(self, x, t):
            return self.scale * torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1).expand(len(x), -1, *x.shape[2:])

    model = CategoricalDiffusion(Sure(), num_classes=3, timesteps=4)
    loss = model.loss(torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2, dtype=torch.uint8))["loss"]
    loss.backward()
    assert 1e3 < loss.item() < math.inf
    assert math.isfinite(model.net.scale.grad.item())
    assert model.net.scale.grad.item() > 0


def test_training_keeps_a_class_with_the_share_of_the_schedule():
    torch.manual_seed(0)
    k, net = 3, Recorder(3)
    CategoricalDiffusion(net, num_classes=k, timesteps=4).loss(torch.zeros(4, 1, 100, 100), torch.ones(4, 1, 100, 100))
    ((x, t),) = net.seen
    assert x.shape == (4, 4, 100, 100)  # three classes, then the image
    assert torch.equal(x[:, :3].sum(dim=1), torch.ones(4, 100, 100))
    alpha = cosine_schedule(4)[(4 * t).round().long()]
    kept = x[:, 1].flatten(1).mean(dim=1)
    torch.testing.assert_close(kept, alpha + (1 - alpha) / 3, atol=4 * 0.5 / 100, rtol=0)


def test_training_times_are_uniform():
    torch.manual_seed(0)
    net = Recorder(2)
    model = CategoricalDiffusion(net, timesteps=5)
    for _ in range(2000):
        model.loss(torch.zeros(3, 1, 1, 1), torch.zeros(3, 1, 1, 1))
    times = torch.stack([t for _, t in net.seen])  # (2000, 3)
    for place in range(3):
        shares = torch.bincount((5 * times[:, place]).round().long(), minlength=6) / 2000
        assert shares[0] == 0
        torch.testing.assert_close(shares[1:], torch.full((5,), 0.2), atol=4 * 0.4 / 2000**0.5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("steps", [250, 10, 2])
@pytest.mark.parametrize("pi", [0.05, 0.25])
def test_with_the_exact_posterior_draws_have_the_true_probability_for_all_numbers_of_steps(pi, steps):
    torch.manual_seed(0)
    n = 20_000
    draws = exact([1 - pi, pi], steps=steps).sample(torch.zeros(1, 1, 1, 1), n)[0, :, 1]
    tolerance = 4 * math.sqrt(pi * (1 - pi) / n)
    assert draws.mean().item() == pytest.approx(pi, abs=tolerance)
    assert (draws > 0.5).float().mean().item() == pytest.approx(pi, abs=tolerance + 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("steps", [40, 3])
def test_three_classes_have_their_true_probabilities(steps):
    torch.manual_seed(0)
    n, prior = 5000, [0.7, 0.2, 0.1]
    draws = exact(prior, 40, steps=steps).sample(torch.zeros(1, 1, 2, 2), n)[0]  # (N, K, 2, 2)
    shares = F.one_hot(draws.argmax(dim=1), 3).float().flatten(0, 2).mean(dim=0)
    for share, pi in zip(shares.tolist(), prior, strict=True):
        assert share == pytest.approx(pi, abs=4 * math.sqrt(pi * (1 - pi) / (4 * n)) + 1e-3)


@torch.no_grad()
def test_few_steps_lose_the_rarer_mode_of_pixels_that_change_together_and_many_do_not():
    torch.manual_seed(0)
    n, pi, image, share = 4000, 0.3, torch.zeros(1, 1, 2, 2), {}
    for steps in (2, 8, 100):
        model = CategoricalDiffusion(Twins(pi, 100), timesteps=100, steps=steps)
        labels = model.sample(image, n)[0].argmax(dim=1).flatten(1)  # (N, 4)
        assert (labels == labels[:, :1]).all()
        share[steps] = labels[:, 0].float().mean().item()
    three_of_four = (
        4 * pi**3 * (1 - pi) + pi**4
    )  # after one stride the pixels are independent, and the majority decides
    assert share[2] == pytest.approx(three_of_four, abs=4 * math.sqrt(three_of_four / n))
    assert share[2] < share[8] < share[100]
    assert share[100] == pytest.approx(pi, abs=0.03)


@pytest.mark.parametrize(("steps", "expected"), [(4, [10, 7, 4, 1]), (2, [10, 1]), (None, list(range(10, 0, -1)))])
def test_a_draw_visits_times_from_the_first_to_the_last(steps, expected):
    net = Recorder(2)
    CategoricalDiffusion(net, timesteps=10, steps=steps).sample(torch.zeros(1, 1, 2, 2), 3)
    assert [(10 * t).round().int().tolist() for _, t in net.seen] == [[time] * 3 for time in expected]


@torch.no_grad()
def test_a_draw_starts_from_uniform_classes():
    torch.manual_seed(0)
    net = Recorder(3)
    CategoricalDiffusion(net, num_classes=3, timesteps=10, steps=2).sample(torch.zeros(1, 1, 50, 50), 4)
    shares = net.seen[0][0][:, :3].mean(dim=(0, 2, 3))
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=4 * 0.47 / 100, rtol=0)


def test_every_number_of_steps_has_distinct_times():
    for steps in range(2, 251):
        times = torch.linspace(250, 1, steps).round()
        assert len(times.unique()) == steps


@torch.no_grad()
def test_a_crop_of_the_noise_is_a_crop_of_the_draw():
    model = CategoricalDiffusion(Recorder(3), num_classes=3, timesteps=8)
    image = torch.randn(2, 1, 6, 5)
    (keys,) = model.draw_noise(image, 4)
    assert keys.dtype == torch.int64
    whole = model.sample(image, 4, (keys,))
    part = model.sample(image[..., 1:4, 2:], 4, (keys[..., 1:4, 2:],))
    torch.testing.assert_close(part, whole[..., 1:4, 2:])


def test_the_state_is_the_network_alone():
    model = CategoricalDiffusion(nn.Conv2d(3, 2, 1))
    assert set(model.state_dict()) == {"net.weight", "net.bias"}


@pytest.mark.parametrize(("timesteps", "steps"), [(250, 1), (250, 251), (10, 0), (1, None)])
def test_wrong_numbers_of_steps_are_refused(timesteps, steps):
    with pytest.raises(ValueError, match="pass 2 <= steps <= timesteps"):
        CategoricalDiffusion(nn.Identity(), timesteps=timesteps, steps=steps)


def test_a_network_with_another_number_of_outputs_is_refused():
    model = CategoricalDiffusion(Recorder(3), num_classes=2, timesteps=3)
    model.net.weights = torch.randn(3, 3)
    with pytest.raises(ValueError, match="3 outputs; it needs num_classes = 2"):
        model.sample(torch.zeros(1, 1, 2, 2), 1)
