import pytest
import torch

from monai_flowssn.segmenters.gaussian_base import gaussian_base

IMAGE = torch.randn(2, 3, 4, 4)


def test_k_outputs_are_the_mean_2k_also_the_log_deviation_and_none_is_around_zero():
    loc, scale = gaussian_base(lambda x: x[:, :2], IMAGE, 2, 0.5)
    assert torch.equal(loc, IMAGE[:, :2])
    assert torch.equal(scale, torch.full_like(loc, 0.5))
    both = torch.cat([IMAGE[:, :2], torch.full((2, 2, 4, 4), -100.0)], dim=1)
    loc, scale = gaussian_base(lambda x: both, IMAGE, 2, 0.5)
    assert torch.equal(loc, IMAGE[:, :2])
    torch.testing.assert_close(scale, torch.full_like(loc, 1e-5))
    loc, scale = gaussian_base(None, IMAGE, 2, 0.5)
    assert torch.equal(loc, torch.zeros(2, 2, 4, 4))
    assert torch.equal(scale, torch.full((2, 2, 4, 4), 0.5))


def test_other_outputs_are_refused():
    with pytest.raises(ValueError, match="the base has 3 outputs; it needs num_classes = 2, or twice that"):
        gaussian_base(lambda x: x, IMAGE, 2, 1.0)
