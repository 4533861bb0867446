import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from monai_flowssn.metrics import compute_ged
from monai_flowssn.networks import LatentHead
from monai_flowssn.segmenters.mose import MixtureOfStochasticExperts, soft_iou_cost, transport_plan


class Outputs(nn.Module):
    """The same outputs for every image."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = nn.Parameter(torch.as_tensor(outputs, dtype=torch.float32))

    def forward(self, image):
        return self.outputs.expand(len(image), *self.outputs.shape)


class LatentAsLogit(nn.Module):
    """A head whose foreground logit is z itself, scaled."""

    def __init__(self, scale=1.0, latent_dim=1):
        super().__init__()
        self.latent_dim, self.scale = latent_dim, scale

    def project(self, features):
        return features

    def forward(self, projected, z):
        logit = (self.scale * z[:, :1])[..., None, None].expand(-1, 1, *projected.shape[2:])
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


class MeanGate(nn.Module):
    """Logits that are linear in the mean of the image."""

    def __init__(self, experts):
        super().__init__()
        self.linear = nn.Linear(1, experts)

    def forward(self, image):
        return self.linear(image.flatten(2).mean(dim=2))


def mose(gate, scale=1.0, **options):
    experts = len(gate)
    head = LatentAsLogit(scale)
    return MixtureOfStochasticExperts(nn.Identity(), Outputs(gate), head=head, experts=experts, **options)


def one_problem(cost, weights, capacity):
    """The transport of one image as a linear programme, written out row by row: its least cost."""
    n, r = cost.shape
    sent, received = np.zeros((r, n, r)), np.zeros((n, n, r))
    for j in range(r):
        sent[j, :, j] = 1
    for i in range(n):
        received[i, i, :] = 1
    solution = linprog(
        cost.ravel(), received.reshape(n, -1), np.full(n, capacity), sent.reshape(r, -1), weights, method="highs"
    )
    assert solution.success
    return solution.fun


@pytest.mark.parametrize("capacity", [0.21, 0.25, 0.4, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("missing", [0, 1])
def test_the_plan_is_optimal(capacity, missing):
    torch.manual_seed(0)
    cost, weights = torch.rand(5, 6, 4), torch.full((5, 4), 0.25)
    if missing:
        weights[1] = torch.tensor([1 / 3, 0.0, 1 / 3, 1 / 3])
        weights[3] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    plan = transport_plan(cost, weights, capacity)
    assert (plan >= -1e-6).all()
    torch.testing.assert_close(plan.sum(dim=1), weights)
    assert plan.sum(dim=2).max() <= capacity + 1e-6
    for b in range(5):
        least = one_problem(cost[b].double().numpy(), weights[b].double().numpy(), capacity)
        assert (plan[b] * cost[b]).sum().item() == pytest.approx(least, abs=1e-6)


def test_without_a_limit_every_annotation_goes_to_its_nearest_draw():
    cost = torch.tensor([[[0.1, 0.9, 0.2], [0.5, 0.3, 0.4]]])
    plan = transport_plan(cost, torch.full((1, 3), 1 / 3))
    torch.testing.assert_close(plan[0], torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]) / 3)


def test_a_limit_sends_the_rest_to_where_it_costs_least():
    cost = torch.tensor([[[0.0, 0.0], [0.3, 0.2], [1.0, 1.0]]])
    plan = transport_plan(cost, torch.tensor([[0.5, 0.5]]), 0.5)
    torch.testing.assert_close(plan[0], torch.tensor([[0.5, 0.0], [0.0, 0.5], [0.0, 0.0]]))


def test_a_cost_that_is_not_finite_does_not_stop_the_solver():
    cost = torch.full((1, 3, 2), math.nan)
    for capacity in (0.5, 1.0):
        torch.testing.assert_close(transport_plan(cost, torch.tensor([[0.5, 0.5]]), capacity).sum(), torch.tensor(1.0))


def test_an_impossible_plan_is_refused():
    with pytest.raises(RuntimeError, match="no transport plan"):
        transport_plan(torch.rand(1, 2, 2), torch.full((1, 2), 0.5), 0.25)


def test_the_cost_of_labels_by_hand():
    y = torch.zeros(1, 3, 2, 1, 4)
    y[0, 0, 1, 0] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    y[0, 1, 1, 0] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    y[:, :, 0] = 1 - y[:, :, 1]  # the third is empty
    cost = soft_iou_cost(y, y)[0]
    torch.testing.assert_close(cost.diagonal(), torch.zeros(3))
    torch.testing.assert_close(cost, cost.T)
    assert cost[0, 1].item() == pytest.approx(1 - (1 + 1) / (4 + 1))
    assert cost[0, 2].item() == pytest.approx(1 - 1 / 3)


def test_the_cost_of_soft_draws_is_the_mean_over_the_foreground():
    torch.manual_seed(0)
    draws, masks = torch.rand(2, 3, 4, 2, 3, 2).softmax(dim=2), torch.randint(0, 4, (2, 5, 2, 3, 2))
    y = nn.functional.one_hot(masks, 4).movedim(-1, 2)
    cost = soft_iou_cost(draws, y)
    for b, n, r in ((0, 0, 0), (1, 2, 4)):
        total = 0.0
        for k in (1, 2, 3):
            p, label = draws[b, n, k], (masks[b, r] == k).float()
            shared = (p * label).sum()
            total += (1 - (shared + 1) / (p.sum() + label.sum() - shared + 1)).item() / 3
        assert cost[b, n, r].item() == pytest.approx(total, abs=1e-6)


def test_the_cost_counts_pixels_exactly_under_autocast():
    draws = torch.stack([torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)], dim=2)
    y = draws.clone()
    y[0, 0, :, 0, 0] = torch.tensor([1.0, 0.0])
    with torch.autocast("cpu", torch.bfloat16):
        assert soft_iou_cost(draws, y).item() == pytest.approx(1 / 4097, rel=1e-3)


@torch.no_grad()
def test_draws_choose_experts_with_the_probabilities_of_the_gate():
    torch.manual_seed(0)
    probabilities, n = torch.tensor([0.5, 0.3, 0.2]), 20_000
    model = mose(probabilities.log())
    model.mean.copy_(torch.tensor([[-2.0], [0.0], [2.0]]))
    model.log_deviation.fill_(math.log(0.1))
    logit = model.sample(torch.zeros(1, 1, 1, 1), n)[0, :, 1].logit().flatten()
    for mean, p in zip((-2.0, 0.0, 2.0), probabilities.tolist(), strict=True):
        z = logit[(logit - mean).abs() < 1]
        assert len(z) / n == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))
        assert z.mean().item() == pytest.approx(mean, abs=4 * 0.1 / len(z) ** 0.5)
        assert z.std().item() == pytest.approx(0.1, rel=0.05)


@torch.no_grad()
def test_weighted_draws_are_those_of_every_expert():
    gate = torch.tensor([0.75, 0.25])
    model = mose(gate.log(), samples=2)
    model.mean.copy_(torch.tensor([[1.0], [5.0]]))
    noise = torch.tensor([[[0.0], [0.0], [8.0], [-8.0]]])
    draws, weights = model.weighted_draws(torch.zeros(1, 1, 1, 1), 4, noise)  # the deviation is 1 / 8
    torch.testing.assert_close(draws[0, :, 1, 0, 0].logit(), torch.tensor([1.0, 5.0, 2.0, 4.0]))
    torch.testing.assert_close(weights, torch.tensor([[0.375, 0.125, 0.375, 0.125]]))
    with pytest.raises(ValueError, match="n is 3, but 2 experts draw equally often: give a multiple of 2"):
        model.weighted_draws(torch.zeros(1, 1, 1, 1), 3)


@torch.no_grad()
def test_weighted_draws_have_the_metrics_of_plain_ones():
    """The weighted GED of all experts is what draws chosen by the gate tend to."""
    torch.manual_seed(0)
    model = mose(torch.tensor([0.75, 0.25]).log(), samples=1)
    model.mean.copy_(torch.tensor([[-9.0], [9.0]]))
    image, masks = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1, 1], [1, 1]], [[0, 0], [0, 1]]]])
    draws, weights = model.weighted_draws(image, 2)
    many = model.sample(image, 2_000)
    weighted = compute_ged(draws.argmax(2), masks, weights=weights)
    assert weighted.item() == pytest.approx(compute_ged(many.argmax(2), masks).item(), abs=0.05)
    unweighted = compute_ged(draws.argmax(2), masks)
    assert (weighted - unweighted).abs().item() > 0.1


@torch.no_grad()
def test_beta_is_that_of_a_mean_over_draws():
    assert mose([0.0, 0.0, 0.0], samples=2).beta == 1 / 6
    assert mose([0.0, 0.0], beta=3.0).beta == 3.0


@torch.no_grad()
def test_the_noise_is_a_choice_and_a_latent_vector():
    model = mose([0.0, 0.0])
    model.mean.copy_(torch.tensor([[1.0], [5.0]]))
    u, epsilon = torch.tensor([[0.1, 0.49, 0.51]]), torch.tensor([[[0.0], [8.0], [-8.0]]])
    draws = model.sample(torch.zeros(1, 1, 1, 1), 3, (u, epsilon))
    torch.testing.assert_close(draws[0, :, 1, 0, 0].logit(), torch.tensor([1.0, 2.0, 4.0]))  # the deviation is 1 / 8
    u, epsilon = model.draw_noise(torch.zeros(2, 1, 4, 4), 3)
    assert (u.shape, epsilon.shape) == ((2, 3), (2, 3, 1))


@torch.no_grad()
def test_the_loss_of_known_draws():
    gate = torch.tensor([0.75, 0.25])
    model = mose(gate.log(), samples=1, beta=0.5, capacity_steps=0)
    model.mean.copy_(torch.tensor([[-100.0], [100.0]]))  # one expert draws nothing, the other everything
    masks = torch.zeros(1, 4, 2, 4, dtype=torch.int16)
    masks[0, 1], masks[0, 2, :, :2], masks[0, 3] = 1, 1, -1
    terms = model.loss(torch.zeros(2, 1, 2, 4), masks.expand(2, -1, -1, -1))
    half = 1 - 5 / 9  # the half mask against the full one, nearer than the empty one
    kl = 1 / 3 * math.log((1 / 3) / 0.75) + 2 / 3 * math.log((2 / 3) / 0.25)
    assert terms["transport"].item() == pytest.approx(half / 3, rel=1e-5)
    assert terms["kl"].item() == pytest.approx(kl, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(half / 3 + 0.5 * kl, rel=1e-5)


def test_the_gate_learns_from_the_divergence_alone():
    torch.manual_seed(0)
    model = mose([0.3, -0.2, 0.1])
    terms = model.loss(torch.zeros(2, 1, 2, 2), torch.randint(0, 2, (2, 3, 2, 2)))
    parameters = [model.gate.outputs, model.mean, model.log_deviation]
    gate, *latent = torch.autograd.grad(terms["transport"], parameters, retain_graph=True, allow_unused=True)
    assert gate is None
    assert all(gradient.any() for gradient in latent)
    gate, *latent = torch.autograd.grad(terms["kl"], parameters, allow_unused=True)
    assert gate.any()
    assert latent == [None, None]


@torch.no_grad()
def test_the_limit_ends_after_its_training_steps(monkeypatch):
    seen = []

    def plan(cost, weights, capacity):
        seen.append(capacity)
        return transport_plan(cost, weights, capacity)

    monkeypatch.setattr("monai_flowssn.segmenters.mose.transport_plan", plan)
    model, case = mose([0.0, 0.0], capacity_steps=2), (torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2))
    model.eval().loss(*case)
    model.train()
    for _ in range(3):
        model.loss(*case)
    model.eval().loss(*case)
    assert seen == [0.5, 0.5, 0.5, 1.0, 1.0]
    again = mose([0.0, 0.0], capacity_steps=2)
    again.load_state_dict(model.state_dict())
    again.loss(*case)
    assert seen[-1] == 1.0


def test_the_first_means_differ_in_every_dimension():
    torch.manual_seed(0)
    head = LatentHead(2, 1, 3, 2, width=4)
    model = MixtureOfStochasticExperts(nn.Identity(), Outputs([0.0] * 5), head=head, experts=5)
    assert model.mean.shape == (5, 3)
    torch.testing.assert_close(model.mean.sort(dim=0).values, torch.linspace(-2, 2, 5)[:, None].expand(5, 3))


def test_the_mixture_that_the_raters_are_is_learnt():
    """Images of +1 have a full mask from three of four raters, images of -1 from one."""
    torch.manual_seed(0)
    sign = torch.tensor([1.0, -1.0] * 4)
    image = sign.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    full = torch.where(sign > 0, 3, 1)
    masks = (torch.arange(4) < full[:, None]).long()[..., None, None].expand(-1, -1, 4, 4)
    features, head = nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU()), LatentHead(2, 16, 1, 2, width=16)
    model = MixtureOfStochasticExperts(features, MeanGate(2), head=head, experts=2, capacity_steps=30)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(220):
        optimiser.zero_grad()
        model.loss(image, masks)["loss"].backward()
        optimiser.step()
    n = 2000
    with torch.no_grad():
        draws = model.eval().sample(image[:2], n)[:, :, 1].flatten(2).mean(dim=2)  # (2, N)
    assert ((draws < 0.1) | (draws > 0.9)).float().mean() > 0.98
    shares = (draws > 0.5).float().mean(dim=1)
    torch.testing.assert_close(shares, torch.tensor([0.75, 0.25]), atol=0.06, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 0}, "pass at least 1, 1 and above 0"),
        ({"samples": 0}, "pass at least 1, 1 and above 0"),
        ({"beta": 0.0}, "pass at least 1, 1 and above 0"),
        ({"experts": 2, "samples": 2, "capacity": 0.2}, "pass at least 0.25, or more samples"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixtureOfStochasticExperts(nn.Identity(), nn.Identity(), head=LatentHead(2, 1, 1, 2, width=4), **options)


def test_a_gate_with_another_number_of_outputs_is_refused():
    model = MixtureOfStochasticExperts(nn.Identity(), Outputs([0.0, 0.0]), head=LatentAsLogit(), experts=3)
    with pytest.raises(ValueError, match=r"the gate returns \(1, 2\); it must be \(B, 3\)"):
        model.sample(torch.zeros(1, 1, 1, 1), 1)
