import math

import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn import functional as F

from monai_flowssn.segmenters import ContinuousFlowSSN, DeterministicUNet, InformedFlowSSN

IMAGE = torch.zeros(1, 1, 1, 1)  # one pixel


class Outputs(nn.Module):
    """A base that adds the first channel of the image to the same outputs (channels,) for every pixel."""

    def __init__(self, *outputs):
        super().__init__()
        self.outputs = torch.tensor(outputs)

    def forward(self, image):
        return self.outputs.view(1, -1, *(1,) * (image.ndim - 2)) + image[:, :1]


class ExactPosterior(nn.Module):
    """log p(y = e_k, y_t) for y_t = (1 - t) u + t y, u ~ N(mu, std^2 I) and P(y = e_k) = prior[k]: what training would learn."""

    def __init__(self, prior, mu, std=1.0):
        super().__init__()
        self.prior, self.mu, self.std = torch.tensor(prior), torch.tensor(mu), std

    def forward(self, y_t, t):
        t = t.view(-1, 1, 1)
        means = (1 - t) * self.mu + t * torch.eye(len(self.prior))  # (B, K, K): a mean for each class
        distance = (y_t.flatten(1)[:, None] - means).square().sum(dim=2)  # (B, K)
        logits = self.prior.log() - distance / (2 * ((1 - t.flatten(1)) * self.std) ** 2)
        return logits[..., None, None]


class Recorder(nn.Module):
    """A flow with known logits (K,) that remembers what it was given."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.seen = torch.tensor(logits), []

    def forward(self, y, t):
        self.seen.append((y, t))
        return self.logits.view(1, -1, *(1,) * (y.ndim - 2)).expand(len(y), -1, *y.shape[2:]).clone()


def exact(prior, mu, std=1.0, **options):
    flow = ExactPosterior(prior, mu, std)
    return ContinuousFlowSSN(
        Outputs(*mu), flow, num_classes=len(mu), base_std=std, steps=250, grid_power=1.0, **options
    )


@torch.no_grad()
@pytest.mark.parametrize(("pi", "biased"), [(0.05, 0.012), (0.10, 0.048), (0.25, 0.200)])
def test_with_the_exact_posterior_markov_finds_the_probability_and_path_its_known_bias(pi, biased):
    torch.manual_seed(0)
    n, prior, mu = 20_000, [1 - pi, pi], [0.0, 0.0]
    sigma = math.sqrt(pi * (1 - pi) / n)
    draws = exact(prior, mu).sample(IMAGE, n)[0, :, 1]
    assert (draws > 0.5).float().mean().item() == pytest.approx(pi, abs=4 * sigma)
    draws = exact(prior, mu, velocity="path").sample(IMAGE, n)[0, :, 1]
    share = (draws > 0.5).float().mean().item()
    assert share < pi - 10 * sigma
    assert share == pytest.approx(biased, abs=0.01)


@torch.no_grad()
def test_markov_is_exact_for_three_classes_and_another_base():
    torch.manual_seed(0)
    n, prior = 20_000, [0.7, 0.2, 0.1]
    draws = exact(prior, [1.0, -0.5, 0.3], std=0.6).sample(IMAGE, n)[0]
    shares = F.one_hot(draws.flatten(1).argmax(dim=1), 3).float().mean(dim=0)
    for share, pi in zip(shares.tolist(), prior, strict=True):
        assert share == pytest.approx(pi, abs=4 * math.sqrt(pi * (1 - pi) / n))


class ExactPosteriorOfTwoImages(nn.Module):
    """What training would learn from as many of one image as of another; told the base's mean, of each its own."""

    def __init__(self, priors, means):
        super().__init__()
        self.means = means
        self.images = nn.ModuleList(ExactPosterior(prior, mu) for prior, mu in zip(priors, means))

    def forward(self, y, t):
        y_t, shown = y[:, :2], y[:, 2:]
        logits = torch.stack([image(y_t, t) for image in self.images])  # log p(y = e_k, y_t | image) up to a constant
        if shown.shape[1]:
            other = torch.stack([(shown.flatten(1) != torch.tensor(mu)).any(dim=1) for mu in self.means])
            logits = logits.masked_fill(other[..., None, None, None], -math.inf)
        return logits.logsumexp(dim=0)


@torch.no_grad()
@pytest.mark.parametrize("informed", [False, True])
def test_markov_is_exact_for_all_images_together_and_for_each_if_the_flow_is_informed(informed):
    torch.manual_seed(0)
    n, truth = 20_000, [0.1, 0.5]
    flow, base = ExactPosteriorOfTwoImages([[1 - pi, pi] for pi in truth], [[0.0, 0.0], [1.0, 1.0]]), Outputs(0.0, 0.0)
    options = {"steps": 250, "grid_power": 1.0}
    model = (
        InformedFlowSSN(base, flow, residual=False, **options) if informed else ContinuousFlowSSN(base, flow, **options)
    )
    draws = model.sample(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), n)[:, :, 1]
    shares = (draws > 0.5).float().flatten(1).mean(dim=1).tolist()
    sigma = [math.sqrt(pi * (1 - pi) / n) for pi in truth]
    assert sum(shares) == pytest.approx(sum(truth), abs=4 * sum(sigma))
    if informed:
        assert all(share == pytest.approx(pi, abs=4 * s) for share, pi, s in zip(shares, truth, sigma, strict=True))
    else:  # each image takes masks from the other
        assert abs(shares[0] - truth[0]) > 10 * sigma[0]


@torch.no_grad()
def test_the_exact_posterior_is_the_minimum_of_the_loss():
    torch.manual_seed(0)
    cases, prior, mu = 4000, [0.75, 0.25], [0.2, -0.1]
    image = torch.zeros(cases, 1, 1, 1)
    masks = (torch.arange(cases) < 0.25 * cases).long().view(-1, 1, 1, 1)

    def loss(prior):
        torch.manual_seed(1)
        model = ContinuousFlowSSN(Outputs(*mu), ExactPosterior(prior, mu), train_draws=4)
        return model.loss(image, masks)["loss"].item()

    assert loss(prior) < min(loss([0.65, 0.35]), loss([0.85, 0.15]))


def test_the_loss_of_known_logits_is_their_cross_entropy():
    torch.manual_seed(0)
    masks = torch.tensor([[0, 2], [1, 1]]).view(2, 1, 1, 2)
    logits = [0.3, -0.2, 1.1]
    total = math.log(sum(map(math.exp, logits)))
    expected = sum(total - logits[c] for c in (0, 2, 1, 1)) / 4
    for m in (1, 3):
        model = ContinuousFlowSSN(Outputs(0.0, 0.0, 0.0), Recorder(logits), num_classes=3, train_draws=m)
        assert model.loss(torch.zeros(2, 1, 1, 2), masks)["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_as_many_train_draws_as_raters_use_every_rater():
    torch.manual_seed(0)
    masks = torch.randint(0, 2, (3, 4, 2, 2))
    masks[:, 3] = -1  # three are left
    image = torch.zeros(3, 1, 2, 2)
    model = ContinuousFlowSSN(Outputs(0.0, 0.0), Recorder([0.3, -1.0]), train_draws=3)
    every = DeterministicUNet(Outputs(0.3, -1.0)).loss(image, masks)["loss"]
    for _ in range(3):
        torch.testing.assert_close(model.loss(image, masks)["loss"], every)


def test_the_flow_sees_the_point_between_the_base_and_the_annotation(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.full_like(x, 2.0))
    flow = Recorder([0.0, 0.0, 0.0])
    model = ContinuousFlowSSN(Outputs(0.5, -1.0, 0.1), flow, num_classes=3, base_std=0.25, train_draws=2)
    masks = torch.tensor([0, 1, 2, 1]).view(2, 1, 1, 2)
    model.loss(torch.tensor([0.0, 10.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2), masks)
    (y_t, t), *_ = flow.seen
    assert t.shape == (4,)
    for row in range(4):  # image 0 twice, then image 1 twice
        u = torch.tensor([0.5, -1.0, 0.1]) + 10.0 * (row // 2) + 0.25 * 2.0
        for pixel in range(2):
            y = torch.eye(3)[masks[row // 2, 0, 0, pixel]]
            torch.testing.assert_close(y_t[row, :, 0, pixel], (1 - t[row]) * u + t[row] * y)


def test_training_times_are_uniform_and_stratified_within_a_case():
    torch.manual_seed(0)
    cases, m, flow = 1000, 4, Recorder([0.0, 0.0])
    model = ContinuousFlowSSN(Outputs(0.0, 0.0), flow, train_draws=m)
    model.loss(torch.zeros(cases, 1, 1, 1), torch.zeros(cases, 1, 1, 1, dtype=torch.uint8))
    t = flow.seen[0][1].view(cases, m)
    quarters = (t * m).floor().sort(dim=1).values
    torch.testing.assert_close(quarters, torch.arange(4.0).expand(cases, m), rtol=0, atol=0)
    for place in range(m):
        assert kstest(t[:, place].numpy(), "uniform").pvalue > 1e-3


def test_the_base_noise_has_the_stated_mean_and_standard_deviation():
    torch.manual_seed(0)
    flow = Recorder([0.0, 0.0])
    model = ContinuousFlowSSN(Outputs(3.0, -1.0, math.log(0.5), math.log(2.0)), flow, velocity="path", steps=1)
    model.sample(IMAGE, 4000)
    u = flow.seen[0][0].flatten(1)  # y at t = 0
    for k, (mean, std) in enumerate([(3.0, 0.5), (-1.0, 2.0)]):
        assert u[:, k].mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(4000))
        assert kstest(((u[:, k] - mean) / std).numpy(), "norm").pvalue > 1e-3


def test_a_learned_standard_deviation_is_bounded_below():
    _, scale = ContinuousFlowSSN(Outputs(0.0, 0.0, -100.0, 0.7), Recorder([0.0, 0.0])).encode(IMAGE)
    torch.testing.assert_close(scale.flatten(), torch.tensor([1e-5, math.exp(0.7)]))


def test_a_fixed_prior_is_standard_normal_and_shows_the_image_to_the_flow():
    flow, image = Recorder([0.0, 0.0]), torch.full((1, 3, 2, 2), 7.0)
    model = ContinuousFlowSSN(None, flow, steps=1, velocity="path")
    noise = torch.randn(1, 2, 2, 2, 2)
    model.sample(image, 2, (noise,))
    seen = flow.seen[0][0]
    torch.testing.assert_close(seen[:, :2], noise[0], rtol=0, atol=0)
    torch.testing.assert_close(seen[:, 2:], image.expand(2, 3, 2, 2), rtol=0, atol=0)


@pytest.mark.parametrize(("velocity", "solver"), [("markov", "euler"), ("path", "euler"), ("path", "midpoint")])
def test_the_options_reach_the_integration(velocity, solver):
    flow = Recorder([0.0, 0.0])
    model = ContinuousFlowSSN(Outputs(0.0, 0.0), flow, velocity=velocity, solver=solver, steps=2, grid_power=2.0)
    model.sample(IMAGE, 1)
    times = {"euler": [0.0, 0.25], "midpoint": [0.0, 0.125, 0.25, 0.625]}[solver]
    assert [t.item() for _, t in flow.seen] == times


@pytest.mark.parametrize("velocity", ["markov", "path"])
@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "dopri5"])
@torch.no_grad()
def test_every_solver_gives_probabilities_of_known_logits(velocity, solver):
    logits = torch.tensor([0.5, -1.0, 2.0])
    flow = Recorder(logits.tolist())
    model = ContinuousFlowSSN(Outputs(1.0, 0.0, 0.0), flow, num_classes=3, velocity=velocity, solver=solver, steps=4)
    draws = model.sample(torch.zeros(2, 1, 2, 2), 2)
    torch.testing.assert_close(draws, logits.softmax(0).view(3, 1, 1).expand_as(draws), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"velocity": "straight"}, "velocity is 'straight'; choose one of 'markov', 'path'"),
        ({"solver": "rk4"}, "solver is 'rk4'; choose one of 'euler', 'midpoint', 'heun', 'dopri5'"),
        ({"steps": 0}, "steps is 0; .*pass steps >= 1"),
        ({"grid_power": 0.0}, "grid power is 0.0; .*above 0"),
        ({"base_std": 0.0}, "base_std is 0.0"),
        ({"train_draws": 0}, "train_draws 0"),
        ({"num_classes": 1}, "num_classes=1"),
    ],
)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        ContinuousFlowSSN(Outputs(0.0, 0.0), Recorder([0.0, 0.0]), **options)


@pytest.mark.parametrize("outputs", [1, 3, 5])
def test_networks_with_a_wrong_number_of_outputs_are_refused(outputs):
    with pytest.raises(ValueError, match=f"the base has {outputs} outputs; it needs num_classes = 2, or twice that"):
        ContinuousFlowSSN(Outputs(*[0.0] * outputs), Recorder([0.0, 0.0])).sample(IMAGE, 1)
    with pytest.raises(ValueError, match=f"the flow has {outputs} outputs; it needs num_classes = 2"):
        ContinuousFlowSSN(Outputs(0.0, 0.0), Recorder([0.0] * outputs)).sample(IMAGE, 1)
