import pytest
import torch

from monai_flowssn.networks.made import ConstantMaps, MaskedLinear
from monai_flowssn.segmenters.autoregressive import AutoregressiveFlowSSN

SIZES = {"2-D": (3, 4), "3-D": (2, 3, 2)}


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys())
def size(request):
    return request.param


def filled(size, inputs, outputs):
    torch.manual_seed(0)
    layer = MaskedLinear(size, inputs, outputs)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    return layer


def test_the_jacobian_is_strictly_lower_block_triangular(size):
    layer = filled(size, 2, 4)
    u = torch.randn(1, 2, *size)
    jacobian = torch.autograd.functional.jacobian(lambda flat: layer(flat.view(u.shape)).flatten(), u.flatten())
    d = u[0, 0].numel()
    jacobian = jacobian.view(4, d, 2, d)
    for i in range(d):
        assert not jacobian[:, i, :, i:].any()
        assert jacobian[:, i, :, :i].all()


def test_it_is_the_sum_over_the_pixels_before(size):
    layer = filled(size, 3, 2)
    u = torch.randn(2, 3, *size)
    d = u[0, 0].numel()
    weight, bias = layer.weight.view(2, d, 3, d), layer.bias.view(2, d)
    expected = bias.expand(2, 2, d).clone()
    for i in range(d):
        for j in range(i):
            expected[:, :, i] += u.flatten(2)[:, :, j] @ weight[:, i, :, j].T
    torch.testing.assert_close(layer(u).flatten(2), expected)


def test_an_affine_flow_starts_as_the_identity():
    model = AutoregressiveFlowSSN(ConstantMaps(torch.zeros(2, 3, 4)), MaskedLinear((3, 4), 2, 4))
    u = torch.randn(5, 2, 3, 4)
    torch.testing.assert_close(model.flow(u)[0], u)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 4, 3\).*\(B, 2, 3, 4\)"):
        MaskedLinear((3, 4), 2, 4)(torch.zeros(1, 2, 4, 3))
    with pytest.raises(ValueError, match="1 or more"):
        MaskedLinear((3, 0), 2, 4)


def test_constant_maps_are_the_same_for_every_image_and_learn_from_all():
    initial = torch.randn(2, 3, 4)
    net = ConstantMaps(initial)
    out = net(torch.randn(5, 1, 3, 4))
    torch.testing.assert_close(out, initial.expand(5, 2, 3, 4))
    out.sum().backward()
    torch.testing.assert_close(net.maps.grad, torch.full_like(initial, 5))


def test_the_flow_learns_what_independent_pixels_cannot():
    """All pixels agree on a fair coin: 1 bit an image, where independent pixels pay 1 bit each."""
    torch.manual_seed(0)
    model = AutoregressiveFlowSSN(ConstantMaps(torch.zeros(2, 2, 2)), MaskedLinear((2, 2), 2, 4), train_draws=64)
    image, masks = torch.zeros(2, 1, 2, 2), torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]).long()
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss = model.loss(image, masks)["loss"]
        loss.backward()
        optimiser.step()
    assert all(p.grad.any() for p in model.parameters())
    layer = model.flow.nets[0]
    assert not layer.weight[layer.mask == 0].any()
    labels = model.sample(image[:1], 500)[0].argmax(dim=1).flatten(1)  # (N, d)
    agree = (labels == labels[:, :1]).all(dim=1)
    assert agree.float().mean() > 0.9
    assert 0.35 < labels[agree, 0].float().mean() < 0.65
