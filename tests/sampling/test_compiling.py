import shutil

import pytest
import torch
from torch import nn

from monai_flowssn.networks import PlainUNet
from monai_flowssn.sampling import compile_steps
from monai_flowssn.segmenters import SSN, ContinuousFlowSSN


class Flow(nn.Conv2d):
    def forward(self, y, t):
        return super().forward(y).tanh() * (1 + t.view(-1, 1, 1, 1))


def small():
    torch.manual_seed(0)
    return ContinuousFlowSSN(PlainUNet(2, 1, 2, channels=(4, 8), convs=1), Flow(2, 2, 3, padding=1), steps=3).eval()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of torch's own compiler
def test_the_compiled_network_draws_the_same():
    model, image = small(), torch.randn(1, 1, 16, 16)
    noise, names = model.draw_noise(image, 4), list(model.state_dict())
    with torch.inference_mode():
        expected = model.sample(image, 4, noise)
        compile_steps(model)
        draws = model.sample(image, 4, noise)
    assert model.flow._compiled_call_impl is not None
    assert list(model.state_dict()) == names
    assert expected.std() > 0.1
    torch.testing.assert_close(draws, expected, atol=1e-4, rtol=0)


def test_without_a_compiler_a_warning_says_so_and_draws_go_on(monkeypatch):
    def broken(function, **_):
        raise RuntimeError("No working C++ compiler found\nlong explanation")

    model, image = small(), torch.randn(1, 1, 16, 16)
    monkeypatch.setattr("torch.compile", broken)
    with pytest.warns(UserWarning, match=r"does not work here \(No working C\+\+ compiler found\); drawing without it"):
        compile_steps(model)
    assert model.flow._compiled_call_impl is None
    assert model.sample(image, 2).shape == (1, 2, 2, 16, 16)


def test_a_method_that_draws_in_one_pass_has_nothing_to_compile():
    with pytest.raises(ValueError, match="SSN draws in one pass"):
        compile_steps(SSN(PlainUNet(2, 1, 24, channels=(4, 8), convs=1)))
