"""Log-determinants against autograd and inverses, at random and at extreme parameters."""

import pytest
import torch
from torch.distributions import AffineTransform, ComposeTransform, Independent, Normal, TransformedDistribution

from monai_flowssn.flows import GlowFlow, NICEFlow, PlanarFlow, RadialFlow
from monai_flowssn.flows.transforms import Coupling, Linear, Planar, Radial

L, B = 5, 4


def planar(scale):
    return Planar(scale * torch.randn(B, L), scale * torch.randn(B, L), scale * torch.randn(B, 1))


def radial(scale):
    return Radial(torch.randn(B, L), scale * torch.randn(B, 1), scale * torch.randn(B, 1))


def affine(scale):
    return AffineTransform(scale * torch.randn(B, L), (0.5 * scale * torch.randn(B, L)).exp(), event_dim=1)


def linear(scale):
    matrix = scale * torch.randn(B, L, L)
    return Linear(matrix.tril(-1), 0.5 * scale * torch.randn(B, L), matrix.triu(1))


def coupling(scale, first_kept=True):
    kept = 2 if first_kept else 3
    weight = torch.randn(kept, 2 * (L - kept))
    return Coupling(lambda z: torch.tanh(scale * z @ weight).chunk(2, dim=1), 2, first_kept=first_kept)


def coupling_second(scale):
    return coupling(scale, first_kept=False)


BIJECTIONS = [planar, radial, affine, linear, coupling, coupling_second]


def log_det_by_autograd(transform, z):
    jacobian = torch.autograd.functional.jacobian(lambda z: transform._call(z).sum(dim=0), z)  # (L, B, L)
    return torch.linalg.slogdet(jacobian.movedim(1, 0))


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("make", BIJECTIONS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_the_log_determinant_is_that_of_autograd_and_positive(make, scale):
    transform, z = make(scale), 2 * torch.randn(B, L)
    sign, log_det = log_det_by_autograd(transform, z)
    assert (sign == 1).all()
    torch.testing.assert_close(transform.log_abs_det_jacobian(z, transform(z)), log_det)


@pytest.mark.parametrize("make", BIJECTIONS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_the_inverse_undoes(make, scale):
    transform, z = make(scale), 2 * torch.randn(B, L)
    y = transform(z)
    torch.testing.assert_close(transform._inverse(y), z, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("a", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("b", [-60.0, 0.0, 60.0])
def test_extreme_parameters_stay_invertible_and_finite_in_float32(a, b):
    torch.set_default_dtype(torch.float32)
    z = torch.randn(B, L)
    w = torch.zeros(B, L)
    w[:, 0] = 1.0
    for transform in (
        Planar(a * w, w, torch.full((B, 1), b)),  # w . u = a, at both ends of the constraint
        Radial(torch.zeros(B, L), torch.full((B, 1), a), torch.full((B, 1), b)),
    ):
        y = transform(z)
        assert torch.isfinite(y).all()
        assert torch.isfinite(transform.log_abs_det_jacobian(z, y)).all()


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-3])
def test_planar_with_a_small_w_is_almost_a_bounded_shift_and_with_no_u_the_identity(size):
    z, u, w = torch.randn(B, L), torch.randn(B, L), size * torch.randn(B, L)
    shift = Planar(u, w, torch.ones(B, 1))
    assert ((shift(z) - z).norm(dim=1) <= u.norm(dim=1)).all()
    torch.testing.assert_close(shift.log_abs_det_jacobian(z, z), torch.zeros(B), rtol=0, atol=10 * size)
    torch.testing.assert_close(Planar(0 * u, torch.randn(B, L), torch.ones(B, 1))(z), z)


def test_planar_is_monotone_along_w_at_the_edge_of_the_constraint():
    line = torch.linspace(-3, 3, 2001)[:, None] * torch.tensor([[1.0, 0.0]])
    w = torch.tensor([[1.0, 0.0]]).expand(len(line), 2)
    y = Planar(-50 * w, w, torch.zeros(len(line), 1))(line)
    assert (y[1:, 0] > y[:-1, 0]).all()


def test_radial_at_its_centre():
    centre = torch.randn(B, L)
    transform = Radial(centre, torch.zeros(B, 1), torch.ones(B, 1))
    torch.testing.assert_close(transform(centre), centre)
    ratio = (transform.gamma / transform.alpha).log().squeeze(1)  # at the centre a scaling of all L directions
    torch.testing.assert_close(transform.log_abs_det_jacobian(centre, centre), L * ratio)


@pytest.mark.parametrize("kind", [PlanarFlow, RadialFlow, GlowFlow])
@pytest.mark.parametrize("latent_dim", [2, 6, 7])
def test_a_flow_scores_its_draws_by_change_of_variables(kind, latent_dim):
    flow, context = kind(latent_dim, 9, steps=3, hidden=8), torch.randn(B, 9)
    base = Independent(Normal(torch.zeros(B, latent_dim), torch.ones(B, latent_dim)), 1)
    q = TransformedDistribution(base, flow(context))
    torch.manual_seed(1)
    z = q.rsample()
    torch.manual_seed(1)
    start = base.rsample()

    def forward(z):
        for transform in flow(context):
            z = transform._call(z)
        return z.sum(dim=0)

    jacobian = torch.autograd.functional.jacobian(forward, start).movedim(1, 0)
    expected = base.log_prob(start) - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(q.log_prob(z), expected)
    torch.testing.assert_close(q.log_prob(z.clone()), expected, rtol=1e-6, atol=1e-6)  # not cached: by the inverses


@pytest.mark.parametrize("kind", [PlanarFlow, RadialFlow, GlowFlow])
def test_every_parameter_is_trained_and_the_context_matters(kind):
    flow, base = kind(6, 9, steps=4, hidden=8), Independent(Normal(torch.zeros(B, 6), torch.ones(B, 6)), 1)
    q = TransformedDistribution(base, flow(torch.randn(B, 9)))
    z = q.rsample()
    (q.log_prob(z) + z.square().sum(dim=1)).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in flow.parameters())
    start = torch.randn(1, 6).expand(B, 6)
    assert flow(torch.randn(B, 9))[0](start).std(dim=0).min() > 1e-4


def test_steps_and_latent_dim_are_checked():
    for options in ({"latent_dim": 1, "steps": 2}, {"latent_dim": 6, "steps": 0}):
        with pytest.raises(ValueError, match="at least 2 and at least 1"):
            PlanarFlow(options["latent_dim"], 8, steps=options["steps"])


@pytest.mark.parametrize("latent_dim", [2, 5, 8])
def test_nice_starts_as_the_identity_and_its_log_determinant_is_the_sum_of_its_log_scales(latent_dim):
    flow, z = NICEFlow(latent_dim, steps=4, hidden=6), torch.randn(B, latent_dim)
    whole = ComposeTransform(flow())
    torch.testing.assert_close(whole(z), z)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    whole = ComposeTransform(flow())
    y = whole(z)
    assert (y - z).abs().amax(dim=0).min() > 0.01  # every element moves
    torch.testing.assert_close(ComposeTransform(flow()).inv(y), z)
    jacobian = torch.autograd.functional.jacobian(lambda z: ComposeTransform(flow())(z).sum(dim=0), z).movedim(1, 0)
    expected = flow.log_scale.sum().expand(B)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, expected)
    torch.testing.assert_close(whole.log_abs_det_jacobian(z, y), expected)


@pytest.mark.parametrize("options", [{"latent_dim": 1}, {"latent_dim": 4, "steps": 0}])
def test_wrong_sizes_of_nice_are_refused(options):
    with pytest.raises(ValueError, match="must be at least 2 and at least 1"):
        NICEFlow(**options)
