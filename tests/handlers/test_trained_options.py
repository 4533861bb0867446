"""A model is used as it was trained, or not at all: what lies beside its weights, and who compares."""

from __future__ import annotations

import pytest
import torch
import yaml
from ignite.engine import Engine
from monai.bundle import ConfigParser

from monai_flowssn.handlers import BestCheckpoint, WeightsLoader
from monai_flowssn.workflows import Data, model_options

OPTIONS = {"spatial_size": [16, 16], "data::intensity_range": [0, 255], "network_def::net::blocks": 1}


def load(path, options, **more) -> torch.nn.Module:
    network = torch.nn.Linear(1, 1)
    WeightsLoader(path, network, options=options, **more)(Engine(lambda engine, batch: None))
    return network


@pytest.fixture
def model(tmp_path):
    """Weights of 2, and their options, as a training leaves them."""
    network = torch.nn.Linear(1, 1)
    network.weight.data.fill_(2)
    engine = Engine(lambda engine, batch: None)
    engine.state.key_metric_name, engine.state.metrics = "val_ged", {"val_ged": 0.5}
    BestCheckpoint(tmp_path, network, OPTIONS).attach(engine)
    engine.run([0])
    return tmp_path / "model.pt"


def test_the_same_options_pass_and_others_are_named(model):
    assert yaml.safe_load(model.with_name("options.yaml").read_text()) == OPTIONS
    assert load(model, OPTIONS).weight.item() == 2
    assert load(model, {**OPTIONS, "spatial_size": (16, 16), "data::crops": "whole"}).weight.item() == 2
    other = {**OPTIONS, "data::intensity_range": [-1000, 400], "network_def::net::blocks": 2}
    said = r"--data::intensity_range was \[0, 255\] and is \[-1000, 400\]; --network_def::net::blocks was 1 and is 2\."
    with pytest.raises(ValueError, match=rf"{said} .* --force_options True"):
        load(model, other)
    assert load(model, other, force=True).weight.item() == 2


def test_a_model_without_options_passes_and_a_damaged_file_does_not(model):
    model.with_name("options.yaml").write_text("")
    with pytest.raises(ValueError, match=r"options\.yaml holds no options"):
        load(model, OPTIONS)
    model.with_name("options.yaml").unlink()
    assert load(model, {"data::intensity_range": [1, 2]}).weight.item() == 2


def test_the_options_of_a_model_are_its_data_and_its_network_and_no_way_to_draw():
    network = {"_target_": "Net", "net": {"blocks": 1, "out": "@data::num_classes"}, "steps": 10, "rank": 4}
    spacing = [{"_target_": "Spacingd", "keys": ["image"], "pixdim": [1.0, 1.0]}]
    config = {"lr": 0.1, "spatial_size": [16, 16], "data": {"geometry": spacing}, "network_def": network}
    facts = {"channels": 1, "num_classes": 2, "raters": 3, "intensity_range": (0, 10), "class_values": (0, 255)}
    data = Data(name="toy", cases=lambda **asked: [], **facts)
    options = {
        "spatial_size": [16, 16],
        "data::geometry": spacing,
        "data::channels": 1,
        "data::num_classes": 2,
        "data::intensity_range": [0, 10],
        "data::class_values": [0, 255],
        "data::crops": "centre",
        "data::context": None,
        "network_def::_target_": "Net",
        "network_def::net::blocks": 1,
        "network_def::rank": 4,
    }
    assert model_options(data, config) == options
    parser = ConfigParser(config)
    parser.update(options)  # as a config file that follows
    assert parser["data"]["intensity_range"] == [0, 10]
    assert parser["network_def"] == network
