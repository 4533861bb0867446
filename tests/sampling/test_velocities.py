import math

import pytest
import torch

from monai_flowssn.sampling import SOLVERS, VELOCITIES, euler, markov, path, time_grid


class Field:
    """A smooth p(t, y) that remembers its values."""

    def __init__(self):
        self.seen = []

    def __call__(self, t, y):
        self.seen.append((2 * y.roll(1, dims=1).sin() + t * y).softmax(dim=1))
        return self.seen[-1]


@pytest.fixture
def u():
    return torch.randn(3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def grid(steps, power):
    return time_grid(steps, power).double()


def test_path_under_euler_on_a_uniform_grid_is_the_mean_of_the_softmaxes(u):
    field = Field()
    end = path(field, u, grid(7, 1.0), euler)
    assert len(field.seen) == 7
    torch.testing.assert_close(end, torch.stack(field.seen).mean(dim=0))


def test_path_under_euler_on_another_grid_weighs_them_by_its_steps(u):
    field, times = Field(), grid(5, 2.0)
    end = path(field, u, times, euler)
    torch.testing.assert_close(end, torch.einsum("t,t...->...", times.diff(), torch.stack(field.seen)))


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_markov_under_euler_is_euler_and_lands_on_the_last_softmax(u, power):
    field, times = Field(), grid(6, power)
    end = markov(field, u, times, euler)
    assert len(field.seen) == 6
    torch.testing.assert_close(end, field.seen[-1], rtol=0, atol=0)
    y = u  # the same by a loop over all the intervals, the last included
    for i in range(6):
        y = y + (times[i + 1] - times[i]) * (Field()(times[i], y) - y) / (1 - times[i])
    torch.testing.assert_close(end, y)


@pytest.mark.parametrize("velocity", VELOCITIES.values(), ids=VELOCITIES.keys())
def test_one_step_is_the_softmax_at_the_start(u, velocity):
    torch.testing.assert_close(velocity(Field(), u, grid(1, 1.0), euler), Field()(torch.zeros(()), u))


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
@pytest.mark.parametrize("velocity", VELOCITIES.values(), ids=VELOCITIES.keys())
def test_every_pair_gives_probabilities(u, velocity, solver, steps):
    end = velocity(Field(), 3 * u, grid(steps, 2.0), solver)
    assert end.shape == u.shape
    assert (end >= 0).all()
    torch.testing.assert_close(end.sum(dim=1), torch.ones(3, 2, 2, dtype=torch.float64))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
def test_rounding_of_a_large_start_leaves_no_negative_probability(u, solver):
    corner = torch.eye(4)[:, 0].view(1, 4, 1, 1).expand(3, 4, 2, 2)
    end = path(lambda t, y: corner, 100 * u.float(), time_grid(7), solver)
    assert (end >= 0).all()
    torch.testing.assert_close(end, corner, rtol=0, atol=1e-4)


def test_markov_follows_straight_lines_to_a_known_end_with_every_solver(u):
    target = torch.full_like(u, 0.25)
    for solver in SOLVERS.values():
        torch.testing.assert_close(markov(lambda t, y: target, u, grid(4, 2.0), solver), target, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("velocity", "atol"), [(markov, 5e-4), (path, 2e-5)])
def test_the_solvers_agree_in_the_limit_of_small_steps(u, velocity, atol):
    times = grid(1000, 1.0)  # the last interval of markov is then as long as with dopri5
    midpoint, heun, dopri5 = (velocity(Field(), u[:1], times, SOLVERS[name]) for name in ("midpoint", "heun", "dopri5"))
    torch.testing.assert_close(midpoint, dopri5, rtol=0, atol=atol)
    torch.testing.assert_close(heun, dopri5, rtol=0, atol=atol)


def test_the_analytic_solution_of_path():
    """p(t, y) = (1, t) / (1 + t) has the mean (ln 2, 1 - ln 2) over [0, 1], whatever u."""

    def field(t, y):
        return (torch.stack([torch.ones_like(t), t]) / (1 + t)).expand_as(y)

    u = torch.tensor([[5.0, -3.0]], dtype=torch.float64)
    expected = torch.tensor([[math.log(2), 1 - math.log(2)]], dtype=torch.float64)
    for name, atol in {"euler": 2e-3, "midpoint": 1e-5, "heun": 1e-5, "dopri5": 2e-5}.items():
        torch.testing.assert_close(path(field, u, grid(200, 1.0), SOLVERS[name]), expected, rtol=0, atol=atol)
