import math

import pytest
import torch

from monai_flowssn.sampling import time_grid


def test_the_uniform_grid():
    torch.testing.assert_close(time_grid(4), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_times_are_powers_from_exactly_zero_to_exactly_one(steps, power):
    grid = time_grid(steps, power)
    torch.testing.assert_close(grid, torch.tensor([(i / steps) ** power for i in range(steps + 1)]))
    assert (grid[0].item(), grid[-1].item()) == (0.0, 1.0)
    assert (grid.diff() > 0).all()


def test_a_power_above_one_is_finer_at_the_start():
    assert time_grid(10, 2.0).diff()[0] < time_grid(10, 1.0).diff()[0] < time_grid(10, 0.5).diff()[0]


def test_a_whole_number_may_come_as_a_float():
    torch.testing.assert_close(time_grid(2.0), time_grid(2))


@pytest.mark.parametrize("steps", [0, -1, 1.5, 0.5])
def test_steps_that_are_not_a_count_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}; .*pass steps >= 1"):
        time_grid(steps)


@pytest.mark.parametrize("power", [0.0, -2.0, math.nan])
def test_powers_that_are_not_positive_are_refused(power):
    with pytest.raises(ValueError, match=r"power is .*pass 1 for a uniform grid"):
        time_grid(3, power)
