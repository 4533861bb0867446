import pytest
import torch
from torch import nn

from monai_flowssn.segmenters import SSN, InformedAutoregressiveFlowSSN


class Outputs(nn.Module):
    """The image times another number for each output."""

    def __init__(self, outputs):
        super().__init__()
        self.weights = torch.linspace(-1, 1, outputs)

    def forward(self, image):
        return image * self.weights.view(-1, 1, 1)


class Identity(nn.Module):
    """A flow that changes nothing, and remembers its context."""

    def forward(self, u, context):
        self.context = context
        return torch.zeros_like(u).repeat(1, 2, 1, 1)


def test_with_an_identity_flow_it_is_an_ssn():
    image, flow = torch.randn(2, 1, 3, 4), Identity()
    model = InformedAutoregressiveFlowSSN(Outputs(2 * (1 + 3) + 4), flow, rank=3, base_std=0.5)
    own, shared = model.draw_noise(image, 5)
    out = model.base(image)

    class Head(nn.Module):
        def forward(self, image):  # mean, log-variance, factors
            variance = torch.full((1, 2, 3, 4), 2 * torch.tensor(0.5).log().item())
            return torch.cat([out[:, :2], variance.expand(len(image), -1, -1, -1), out[:, 2:8]], dim=1)

    draws = model.sample(image, 5, (own, shared))
    torch.testing.assert_close(draws, SSN(Head(), rank=3).sample(image, 5, (shared, own)), rtol=1e-4, atol=1e-4)
    context = torch.cat([out[:, :2], out[:, 8:]], dim=1).repeat_interleave(5, 0)
    torch.testing.assert_close(flow.context, context, rtol=0, atol=0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="the base has 7 outputs; it needs num_classes . .1 . rank. = 8"):
        InformedAutoregressiveFlowSSN(Outputs(7), Identity(), rank=3).sample(torch.zeros(1, 1, 2, 2), 1)
    with pytest.raises(ValueError, match="rank is -1"):
        InformedAutoregressiveFlowSSN(Outputs(7), Identity(), rank=-1)
    with pytest.raises(ValueError, match="known for rank 0 alone"):
        InformedAutoregressiveFlowSSN(Outputs(7), Identity(), rank=1, entropy_weight=0.1)
