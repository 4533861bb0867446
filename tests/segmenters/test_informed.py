import pytest
import torch
from torch import nn

from monai_flowssn.segmenters import ContinuousFlowSSN, InformedFlowSSN

IMAGE = torch.arange(8.0).view(2, 1, 2, 2)


class Base(nn.Module):
    """Outputs that tell image, place and channel apart."""

    def __init__(self, outputs):
        super().__init__()
        self.weights, self.calls = torch.linspace(-1, 1, outputs), 0

    def forward(self, image):
        self.calls += 1
        return image * self.weights.view(-1, 1, 1)


class Flow(nn.Module):
    """Half of its first channels, remembered with what it was given."""

    def __init__(self, outputs=2):
        super().__init__()
        self.outputs, self.seen = outputs, []

    def forward(self, y, t):
        self.seen.append((y, t))
        return 0.5 * y[:, : self.outputs] + t.view(-1, 1, 1, 1)


@pytest.mark.parametrize("show_mean", [False, True])
def test_the_flow_sees_the_base_at_every_step_and_the_base_runs_once(show_mean):
    base, flow = Base(5), Flow()
    model = InformedFlowSSN(base, flow, show_mean=show_mean, steps=3)
    model.pixels_at_once = 1  # a chunk for each draw
    model.sample(IMAGE, 2)
    assert base.calls == 1
    assert len(flow.seen) == 6
    known = base(IMAGE)[:, 0 if show_mean else 2 :]
    for y, _ in flow.seen:
        torch.testing.assert_close(y[:, 2:], known, rtol=0, atol=0)


@pytest.mark.parametrize("residual", [False, True])
def test_one_step_is_the_softmax_of_what_the_flow_makes_of_the_noise(residual):
    base, flow = Base(3), Flow()
    model = InformedFlowSSN(base, flow, residual=residual, steps=1, base_std=0.5)
    noise = torch.randn(2, 1, 2, 2, 2)
    mean = base(IMAGE)[:, :2]
    logits = 0.5 * (mean + 0.5 * noise[:, 0]) + (mean if residual else 0)
    torch.testing.assert_close(model.sample(IMAGE, 1, (noise,))[:, 0], logits.softmax(1))


def test_the_loss_is_that_of_the_paper_s_method_where_the_flow_alone_gives_the_logits():
    masks = torch.randint(0, 2, (2, 3, 2, 2))
    losses = []
    for kind, options in ((ContinuousFlowSSN, {}), (InformedFlowSSN, {"residual": False})):
        torch.manual_seed(0)
        losses.append(kind(Base(2), Flow(), train_draws=3, **options).loss(IMAGE, masks)["loss"])
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_networks_with_a_wrong_number_of_outputs_are_refused():
    with pytest.raises(ValueError, match="the base has 1 outputs; it needs num_classes = 2 and one for each feature"):
        InformedFlowSSN(Base(1), Flow()).sample(IMAGE, 1)
    with pytest.raises(ValueError, match="the flow has 1 outputs; it needs num_classes = 2"):
        InformedFlowSSN(Base(2), Flow(1)).sample(IMAGE, 1)
