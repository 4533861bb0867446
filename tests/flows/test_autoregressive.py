"""The structure of the Jacobian, its determinant, and both directions against a Gaussian that is known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from monai_flowssn.flows import AutoregressiveFlow
from monai_flowssn.networks import StripTransformer

K, SIZE, STRIP = 2, (4, 4), (2, 2)


def transformer(outputs):
    net = StripTransformer(2, K, outputs, spatial_size=SIZE, strip=STRIP, width=8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def flow(kind="affine", nets=1):
    torch.manual_seed(0)
    outputs = K if kind == "volume_preserving" else 2 * K
    return AutoregressiveFlow([transformer(outputs) for _ in range(nets)], channels=K, kind=kind).double()


def strip_order():
    """Position of the strip of every element of (K, *SIZE)."""
    rows, columns = torch.meshgrid(*(torch.arange(s) // p for s, p in zip(SIZE, STRIP)), indexing="ij")
    return (rows * (SIZE[1] // STRIP[1]) + columns).expand(K, *SIZE).flatten()


@pytest.mark.parametrize("kind", ["affine", "gated", "volume_preserving"])
@pytest.mark.parametrize("direction", ["forward", "score"])
@pytest.mark.parametrize("nets", [1, 2, 3])
def test_the_log_determinant_is_that_of_autograd(kind, direction, nets):
    flows, u = flow(kind, nets), torch.randn(1, K, *SIZE, dtype=torch.float64)
    apply = getattr(flows, direction)
    jacobian = torch.autograd.functional.jacobian(lambda u: apply(u)[0].flatten(), u).flatten(1)
    torch.testing.assert_close(apply(u)[1], torch.linalg.slogdet(jacobian)[1][None])
    if kind == "volume_preserving":
        assert apply(u)[1].abs().max() < 1e-9


@pytest.mark.parametrize("kind", ["affine", "gated", "volume_preserving"])
def test_the_jacobian_is_lower_triangular_between_strips_and_diagonal_inside(kind):
    flows, u = flow(kind), torch.randn(1, K, *SIZE, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda u: flows(u)[0].flatten(), u).flatten(1)
    order = strip_order()
    later = order[None, :] > order[:, None]
    inside = (order[None, :] == order[:, None]) & ~torch.eye(len(order), dtype=torch.bool)
    assert jacobian[later].abs().max() == 0
    assert jacobian[inside].abs().max() == 0
    before = order[None, :] < order[:, None]
    assert (jacobian[before].abs() > 0).double().mean() > 0.9
    if kind == "volume_preserving":
        torch.testing.assert_close(jacobian.diagonal(), torch.ones(len(order), dtype=torch.float64))


def test_several_flows_make_every_element_depend_on_every_strip():
    flows, u = flow(nets=2), torch.randn(1, K, *SIZE, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda u: flows(u)[0].flatten(), u).flatten(1)
    order = strip_order()
    later = order[None, :] > order[:, None]
    assert (jacobian[later].abs() > 0).double().mean() > 0.9


class LinearNet(nn.Module):
    """Location A x of the flattened x with A strictly lower triangular, and constant log-scales."""

    def __init__(self, matrix, log_scale):
        super().__init__()
        self.matrix, self.log_scale = matrix.tril(-1), log_scale

    def forward(self, x):
        loc = x.flatten(1) @ self.matrix.T
        return torch.cat([loc.view_as(x), self.log_scale.expand_as(loc).view_as(x)], dim=1)


def test_both_directions_of_a_linear_flow_are_the_gaussians_they_must_be():
    torch.manual_seed(0)
    d = 9
    matrix, log_scale = torch.randn(d, d, dtype=torch.float64), torch.randn(d, dtype=torch.float64)
    flows = AutoregressiveFlow(LinearNet(matrix, log_scale), channels=1)
    u = torch.randn(5, 1, 3, 3, dtype=torch.float64)
    standard = MultivariateNormal(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))

    y, log_det = flows(u)  # y = (A + S) u
    factor = matrix.tril(-1) + torch.diag(log_scale.exp())
    expected = MultivariateNormal(standard.mean, factor @ factor.T).log_prob(y.flatten(1))
    torch.testing.assert_close(standard.log_prob(u.flatten(1)) - log_det, expected)

    v, log_det = flows.score(y)  # v = S^-1 (I - A) y
    inverse = torch.linalg.inv(torch.diag((-log_scale).exp()) @ (torch.eye(d) - matrix.tril(-1)))
    expected = MultivariateNormal(standard.mean, inverse @ inverse.T).log_prob(y.flatten(1))
    torch.testing.assert_close(standard.log_prob(v.flatten(1)) + log_det, expected)


def test_gated_is_a_mixture_of_location_and_noise():
    class Net(nn.Module):
        def forward(self, x):
            return torch.stack([torch.full_like(x[:, 0], 2.0), torch.full_like(x[:, 0], -0.3)], dim=1)

    s = torch.sigmoid(torch.tensor(0.7)) + 1e-5
    u = torch.randn(2, 1, 3, 3)
    y, log_det = AutoregressiveFlow(Net(), channels=1, kind="gated")(u)
    torch.testing.assert_close(y, (1 - s) * 2.0 + s * u)
    torch.testing.assert_close(log_det, (9 * s.log()).expand(2))


def test_an_image_is_turned_with_the_order():
    seen = []

    class Net(nn.Module):
        def forward(self, x, image):
            seen.append(image)
            return torch.zeros(len(x), 2, *x.shape[2:])

    image = torch.arange(6.0).view(1, 1, 2, 3)
    AutoregressiveFlow([Net(), Net()], channels=1)(torch.zeros(1, 1, 2, 3), image)
    assert torch.equal(seen[0], image)
    assert torch.equal(seen[1], image.flip(2, 3))


def test_unknown_kinds_and_wrong_outputs_are_refused():
    with pytest.raises(ValueError, match="kind is 'planar'; choose"):
        AutoregressiveFlow([transformer(4)], channels=K, kind="planar")
    with pytest.raises(ValueError, match="has 4 outputs; it needs 2"):
        AutoregressiveFlow(transformer(4), channels=K, kind="volume_preserving")(torch.zeros(1, K, *SIZE))


class Constant(nn.Module):
    """Location 2 and raw scale 0.7 everywhere."""

    def forward(self, x):
        outputs = torch.tensor([2.0] * K + [0.7] * K, dtype=x.dtype)
        return outputs.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:])


@pytest.mark.parametrize("kind", ["affine", "gated"])
def test_a_layer_that_sees_nothing_is_a_line(kind):
    scale = math.exp(0.7) if kind == "affine" else 1 / (1 + math.exp(-1.7)) + 1e-5
    loc = 2 if kind == "affine" else 2 * (1 - scale)
    u = torch.randn(3, K, *SIZE, dtype=torch.float64)
    flows = AutoregressiveFlow(Constant(), channels=K, kind=kind)
    y, log_det = flows(u)
    torch.testing.assert_close(y, loc + scale * u)
    torch.testing.assert_close(log_det, torch.full((3,), u[0].numel() * math.log(scale), dtype=torch.float64))
    back, other = flows.score(y)
    torch.testing.assert_close(back, u)
    torch.testing.assert_close(other, -log_det)


def test_scales_stay_between_a_hundred_thousandth_and_exp_ten():
    u = torch.ones(1, K, *SIZE, dtype=torch.float64)
    for raw, scale in ((-50.0, 1e-5), (50.0, math.exp(10))):
        net = Constant()
        net.forward = lambda x, raw=raw: torch.full((1, 2 * K, *SIZE), raw, dtype=x.dtype)
        y, _ = AutoregressiveFlow(net, channels=K)(u)
        torch.testing.assert_close(y - raw, scale * u, rtol=1e-6, atol=1e-9)
