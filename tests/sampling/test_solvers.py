import math

import pytest
import torch

from monai_flowssn.sampling import SOLVERS, dopri5, euler, heun, midpoint, time_grid

START = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)


def grid(steps, power=1.0):
    return time_grid(steps, power).double()


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_constant_field_is_integrated_exactly(solver, power):
    slope = torch.tensor([[3.0, 0.0, -1.0]], dtype=torch.float64)
    end = solver(lambda t, y: slope, START, grid(5, power))
    torch.testing.assert_close(end, START + slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [midpoint, heun, dopri5])
def test_a_field_linear_in_time_is_integrated_exactly_by_order_two(solver):
    end = solver(lambda t, y: (2 * t).expand_as(y), START, grid(3, 2.0))
    torch.testing.assert_close(end, START + 1, rtol=0, atol=1e-12)


def hyperbola(t, y):
    """y' = -2 t y^2 with y(0) = 1 is y = 1 / (1 + t^2): neither linear in y nor free of t."""
    return -2 * t * y**2


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (midpoint, 2), (heun, 2)])
def test_the_observed_order(solver, order):
    start = torch.ones((), dtype=torch.float64)
    errors = [abs(solver(hyperbola, start, grid(steps)).item() - 0.5) for steps in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("steps", [1, 5])
def test_dopri5_meets_its_tolerance_whatever_the_grid(steps):
    end = dopri5(hyperbola, torch.ones(3, dtype=torch.float64), grid(steps))
    torch.testing.assert_close(end, torch.full((3,), 0.5, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("solver", "times"),
    [
        (euler, [0.0, 0.25]),
        (midpoint, [0.0, 0.125, 0.25, 0.625]),
        (heun, [0.0, 0.25, 0.25, 1.0]),
    ],
)
def test_the_field_is_evaluated_where_the_scheme_says(solver, times):
    seen = []
    solver(lambda t, y: seen.append(t.item()) or y, START, grid(2, 2.0))
    assert seen == times
