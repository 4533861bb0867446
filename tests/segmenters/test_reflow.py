import copy

import pytest
import torch
from torch import nn

from monai_flowssn.segmenters import ContinuousFlowSSN, ReflowSSN

PIXELS = torch.zeros(1, 1, 32, 32)


class Base(nn.Module):
    """A mean and a log standard deviation of 0 for each of two classes, the same in every pixel."""

    def __init__(self):
        super().__init__()
        self.outputs = nn.Parameter(torch.zeros(4))

    def forward(self, image):
        return self.outputs.view(1, -1, 1, 1) + image[:, :1]


class Flow(nn.Module):
    """A small perceptron of (y, t) in every pixel."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))

    def forward(self, y, t):
        times = t.view(-1, 1, 1, 1).expand(-1, 1, *y.shape[2:])
        return self.layers(torch.cat([y, times], dim=1).movedim(1, -1)).movedim(-1, 1)


def train(model, masks, steps):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train().loss(PIXELS.expand(len(masks), -1, -1, -1), masks)["loss"].backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of independent pixels that are foreground with probability 0.2, in 20 steps."""
    torch.manual_seed(0)
    masks = (torch.rand(8, 1, 32, 32) < 0.2).int()
    model = train(ContinuousFlowSSN(Base(), Flow(), steps=20), masks, 300)
    path = tmp_path_factory.mktemp("reflow") / "model.pt"
    torch.save(model.state_dict(), path)
    return model, path


@torch.no_grad()
def labels(model, steps):
    pupil = copy.copy(model)
    pupil.steps = steps
    torch.manual_seed(1)
    return pupil.sample(PIXELS, 4, model.draw_noise(PIXELS, 4)).argmax(dim=2)


@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps_arrive_where_many_did(trained, steps):
    teacher, path = trained
    many = labels(teacher, 20)
    assert many.float().mean().item() == pytest.approx(0.2, abs=0.03)
    before = (labels(teacher, steps) == many).float().mean().item()
    torch.manual_seed(0)
    pupil = ReflowSSN(Base(), Flow(), checkpoint=path, teacher_steps=20, steps=steps)
    train(pupil, torch.zeros(8, 1, 32, 32, dtype=torch.int), 150)
    after = (labels(pupil, steps) == many).float().mean().item()
    assert after > 0.98 > before


def test_only_the_flow_is_trained_and_the_weights_are_those_of_a_continuous_model(trained):
    teacher, path = trained
    pupil = ReflowSSN(Base(), Flow(), checkpoint=path, teacher_steps=2)
    before = copy.deepcopy(pupil.state_dict())
    train(pupil, torch.zeros(1, 1, 32, 32, dtype=torch.int), 2)
    assert set(before) == set(teacher.state_dict())
    changed = [name for name, value in pupil.state_dict().items() if not torch.equal(value, before[name])]
    assert changed
    assert all(name.startswith("flow.") for name in changed)
    assert all(
        torch.equal(value, before[f"flow.{name}"]) for name, value in pupil._teacher[0].flow.state_dict().items()
    )


def test_weights_of_other_networks_are_refused(trained):
    _, path = trained
    with pytest.raises(ValueError, match="does not fit these networks; give the scale"):
        ReflowSSN(None, Flow(), checkpoint=path)
