from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine

from monai_flowssn.handlers import BestCheckpoint


def validate(best: BestCheckpoint, value: float) -> None:
    engine = Engine(lambda engine, batch: None)
    engine.state.key_metric_name, engine.state.metrics = "val_ged", {"val_ged": value}
    best.attach(engine)
    engine.run([0])


def test_the_lowest_metric_has_the_file(tmp_path):
    model = torch.nn.Linear(1, 1)
    best = BestCheckpoint(tmp_path, model)
    for value, weight in ((0.5, 1.0), (0.25, 2.0), (0.375, 3.0)):
        model.weight.data.fill_(weight)
        validate(best, value)
    assert torch.load(tmp_path / "model.pt")["weight"].item() == 2
    assert best.state_dict() == {"best": 0.25, "since": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_no_number_chooses_no_model(tmp_path, value):
    best = BestCheckpoint(tmp_path, torch.nn.Linear(1, 1))
    validate(best, 0.5)
    before = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(ValueError, match=f"the key metric val_ged of this validation is {value}, .* finite"):
        validate(best, value)
    assert (tmp_path / "model.pt").read_bytes() == before
    assert best.state_dict() == {"best": 0.5, "since": 0}
