"""Everything is made on the device of its input, as on a GPU it has to be.

Whatever names no device is put on torch's ``meta`` device here, which holds no numbers and does not mix with the CPU.
"""

import pytest
import torch
from tiny_scales import METHODS, SETTINGS, Case

from monai_flowssn.inferers import DrawInferer, windowed_draws
from monai_flowssn.metrics import PRESETS, evaluate_preset


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def setting(request):
    return request.param


def test_a_tensor_on_a_device_of_its_own_is_noticed():
    with torch.device("meta"), pytest.raises(RuntimeError, match="device"):
        _ = torch.zeros(2, device="cpu") + torch.ones(2)


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_draws_stay_on_their_device(method, setting):
    case = Case(method, setting)
    masks = case.masks(3)
    with torch.device("meta"):
        loss = case.segmenter.train().loss(case.image, masks)["loss"]
        loss.backward()
        draws = case.segmenter.eval().sample(case.image, 2)
    assert {loss.device.type, draws.device.type} == {"cpu"}
    assert {p.grad.device.type for p in case.segmenter.parameters() if p.grad is not None} == {"cpu"}


def test_inference_stays_on_its_device():
    case = Case("flowssn_continuous", SETTINGS["2-D, K=4"])
    with torch.device("meta"), torch.no_grad():
        draws = DrawInferer(2, seed=3, autocast=False)(case.image, case.segmenter)
        parts = list(windowed_draws(case.segmenter, case.image, 2, window=(4, 4)))
    assert {part.device.type for part in [draws, *parts]} == {"cpu"}


@pytest.mark.parametrize("preset", PRESETS)
def test_metrics_stay_on_their_device(preset):
    torch.manual_seed(0)
    pred = torch.rand(2, 3, 3, 4, 4).softmax(dim=2)
    draws, raters = pred.argmax(dim=2), torch.randint(0, 3, (2, 4, 4, 4))
    raters[0, 1] = -1
    with torch.device("meta"):
        values = evaluate_preset(preset, draws, raters, pred=pred, num_classes=3)
    assert {value.device.type for value in values.values()} == {"cpu"}
