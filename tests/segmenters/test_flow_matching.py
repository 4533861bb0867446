"""The velocity that training must find, and what guidance does to it, where both are known in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from monai_flowssn.segmenters import FlowMatching
from monai_flowssn.segmenters.flow_matching import nearest_probabilities

SIZE = (3, 2)


class Recorder(nn.Module):
    """A network with a known answer that remembers what it was given."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, x, t):
        self.seen.append((x, t))
        return self.answer(x, t)


def column(t, x):
    return t.view(-1, *(1,) * (x.ndim - 1))


def to_a_point(target):
    """The exact velocity when every mask is the same: (y - y_t) / (1 - t)."""

    def answer(x, t):
        y_t = x[:, : target.shape[0]]
        return (target - y_t) / (1 - column(t, x))

    return answer


@torch.no_grad()
@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_the_exact_velocity_leads_to_the_mask(solver):
    target = 2.0 * torch.randint(0, 2, (1, *SIZE)) - 1
    model = FlowMatching(Recorder(to_a_point(target)), solver=solver, steps=7)
    draws = model.sample(torch.randn(2, 1, *SIZE), 3)
    torch.testing.assert_close(draws[:, :, 1], ((target + 1) / 2).expand(2, 3, *SIZE))
    three = 2.0 * nn.functional.one_hot(torch.randint(0, 3, SIZE), 3).movedim(-1, 0) - 1
    model = FlowMatching(Recorder(to_a_point(three)), num_classes=3, solver=solver, steps=7)
    draws = model.sample(torch.randn(2, 1, *SIZE), 3)
    assert torch.equal(draws.argmax(dim=2), three.argmax(dim=0).expand(2, 3, *SIZE))


@torch.no_grad()
def test_the_loss_is_zero_for_the_exact_velocity_and_its_variance_for_none():
    mask = torch.randint(0, 2, SIZE)
    target = 2.0 * mask[None] - 1
    image, masks = torch.randn(4, 1, *SIZE), mask.expand(4, 2, *SIZE)
    assert FlowMatching(Recorder(to_a_point(target))).loss(image, masks)["loss"] < 1e-9
    idle = FlowMatching(Recorder(lambda x, t: torch.zeros_like(x[:, :1])))
    losses = torch.stack([idle.loss(image, masks)["loss"] for _ in range(2000)])
    assert losses.mean().item() == pytest.approx(2.0, abs=0.05)  # E (y - noise)^2 = 1 + 1


@torch.no_grad()
def test_training_hides_whole_images_of_a_share_of_the_samples():
    net = Recorder(lambda x, t: torch.zeros_like(x[:, :1]))
    model = FlowMatching(net, condition_dropout=0.25)
    model.loss(torch.ones(4000, 1, *SIZE), torch.zeros(4000, 1, *SIZE).long())
    seen = net.seen[0][0][:, 1:].flatten(1)
    assert ((seen == 0).all(dim=1) | (seen == 1).all(dim=1)).all()
    assert (seen == 0).all(dim=1).float().mean().item() == pytest.approx(0.25, abs=0.03)


@torch.no_grad()
def test_guidance_extrapolates_from_the_branch_without_the_image_in_one_call():
    """With the velocity c x and the image x one step of Euler ends at start + (1 + w) c x."""
    net = Recorder(lambda x, t: 0.5 * x[:, 1:])
    image, noise = torch.full((2, 1, *SIZE), 0.4), (torch.full((2, 3, 1, *SIZE), 0.1),)
    for w in (0.0, 0.3, 2.0):
        net.seen.clear()
        draws = FlowMatching(net, guidance=w, solver="euler", steps=1).sample(image, 3, noise)
        end = 0.1 + (1 + w) * 0.5 * 0.4
        torch.testing.assert_close(draws[:, :, 1], torch.full((2, 3, *SIZE), (end + 1) / 2))
        ((x, t),) = net.seen
        assert len(x) == len(t) == (6 if w == 0 else 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": -0.1}, "guidance is -0.1"),
        ({"condition_dropout": 0.0}, "pass a condition_dropout above 0"),
        ({"condition_dropout": 1.0}, "condition_dropout 1.0"),
        ({"solver": "rk"}, "solver is 'rk'"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FlowMatching(nn.Identity(), **options)


@torch.no_grad()
def test_a_network_of_other_outputs_is_refused():
    model = FlowMatching(Recorder(lambda x, t: x), steps=1)
    with pytest.raises(ValueError, match="has 2 outputs; 2 classes need 1"):
        model.sample(torch.zeros(1, 1, *SIZE), 1)


def test_several_classes_come_back_as_the_nearest_probabilities():
    torch.manual_seed(0)
    sum_one = {"type": "eq", "fun": lambda x: x.sum() - 1}
    points = torch.randn(200, 5) + torch.randn(200, 1)
    found = nearest_probabilities(points[..., None, None]).squeeze()
    for p, q in zip(points.double(), found.double(), strict=True):
        best = minimize(
            lambda x, p=p: ((torch.tensor(x) - p) ** 2).sum().item(),
            np.full(5, 0.2),
            bounds=[(0, 1)] * 5,
            constraints=[sum_one],
        )
        np.testing.assert_allclose(q.numpy(), best.x, atol=1e-3)
    huge = torch.tensor([1e8, 2.0, -1e8, math.inf, math.nan]).view(5, 1, 1).expand(5, 3, 1).clone()
    huge[:, 1] += 3
    found_of_huge = nearest_probabilities(huge)
    assert torch.isfinite(found_of_huge[:3]).all()
    torch.testing.assert_close(found_of_huge[1, :, 0], torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(found.argmax(dim=1), points.argmax(dim=1))  # where guidance has gone beyond 1, too
