import math

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn

from monai_flowssn.handlers.clip_gradient import ClipGradient

BATCHES = [{"image": torch.full((2, 2), v), "label": torch.full((2, 1), 20.0)} for v in (1.0, 2.0, 3.0)]


def train(*handlers):
    """Gradient norms and weights after every step of plain descent."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimiser = torch.optim.SGD(network.parameters(), 1e-3)
    trainer = SupervisedTrainer(
        "cpu", 1, BATCHES, network, optimiser, nn.functional.mse_loss, decollate=False, train_handlers=list(handlers)
    )
    norms, weights = [], []

    @trainer.on(Events.ITERATION_COMPLETED)
    def record(engine):
        norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters())))
        weights.append(torch.cat([p.detach().flatten().clone() for p in network.parameters()]))

    start = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
    trainer.run()
    return norms, weights, start


def test_the_gradient_of_every_step_is_scaled_to_the_bound():
    free, free_weights, start = train()
    clipped, clipped_weights, _ = train(ClipGradient(0.5))
    assert min(free) > 0.5
    assert clipped == pytest.approx([0.5] * 3, rel=1e-4)
    step, free_step = clipped_weights[0] - start, free_weights[0] - start
    torch.testing.assert_close(step, free_step * (0.5 / free[0]), rtol=1e-3, atol=1e-7)  # same direction, shorter


def test_a_gradient_within_the_bound_is_left_alone():
    free, free_weights, _ = train()
    same, weights, _ = train(ClipGradient(2 * max(free)))
    assert same == free
    assert torch.equal(weights[-1], free_weights[-1])


@pytest.mark.parametrize("max_norm", [0, -1.0, math.nan])
def test_a_bound_that_is_not_positive_is_refused(max_norm):
    with pytest.raises(ValueError, match=r"max_norm is .*above 0, e\.g\. 10"):
        ClipGradient(max_norm)
