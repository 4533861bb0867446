import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_flowssn.networks import GaussianEncoder, LatentHead, ModulatedHead, PlainUNet


@pytest.mark.parametrize(("dims", "size"), [(2, (16, 8)), (3, (8, 4, 4))])
def test_shapes_in_2d_and_3d(dims, size):
    channels = (4, 6, 8)
    assert PlainUNet(dims, 2, 3, channels=channels)(torch.randn(2, 2, *size)).shape == (2, 3, *size)
    assert GaussianEncoder(dims, 2, 5, channels=channels)(torch.randn(2, 2, *size)).shape == (2, 5)


def test_the_published_network():
    with torch.device("meta"):
        net = PlainUNet(2, 1, 32)
    assert PlainUNet(2, 1, None, channels=(4, 8))(torch.zeros(1, 1, 4, 4)).shape == (1, 4, 4, 4)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 3 * 4 + 3 * 3 + 1
    assert {tuple(c.kernel_size) for c in convs[:-1]} == {(3, 3)}


@pytest.mark.parametrize("net", [PlainUNet, GaussianEncoder])
def test_normalisation_follows_every_convolution_but_the_last(net):
    kinds = [type(m) for m in net(2, 1, 2, channels=(4, 8), norm="batch").modules()]
    assert kinds.count(nn.BatchNorm2d) == kinds.count(nn.ReLU) == 6 + 3 * (net is PlainUNet)
    model = net(2, 1, 2, channels=(4, 8), norm="batch")
    assert all(m.weight.eq(1).all() for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert model(1e4 * torch.randn(2, 1, 8, 8)).abs().max() < 1e3


def test_sizes_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match=r"divisible by 4 .*pad the image to \(12, 8\)"):
        PlainUNet(2, 1, 2, channels=(4, 4, 4))(torch.zeros(1, 1, 10, 8))


@pytest.mark.parametrize(("dims", "size"), [(2, (4, 3)), (3, (2, 3, 2))])
def test_the_head_is_tiling_concatenation_and_1x1_convolutions(dims, size):
    torch.manual_seed(0)
    head = LatentHead(dims, 5, 3, 2, width=4, layers=3)
    features, z = torch.randn(2, 5, *size), torch.randn(2, 3)
    tiled = z.view(2, 3, *(1,) * dims).expand(-1, -1, *size)
    weight = torch.cat([head.project.conv.weight.flatten(1), head.latent.weight], dim=1)  # (width, 5 + 3)
    x = torch.einsum("oi,bi...->bo...", weight, torch.cat([features, tiled], dim=1))
    x = F.relu(x + head.project.conv.bias.view(-1, *(1,) * dims))
    torch.testing.assert_close(head(head.project(features), z), head.layers(x))


@pytest.mark.parametrize(("dims", "size"), [(2, (4, 3)), (3, (2, 3, 2))])
def test_the_modulated_head_shifts_and_scales_the_features_and_normalises_over_the_draws(dims, size):
    torch.manual_seed(0)
    head = ModulatedHead(dims, 5, 3, 2, width=4, layers=3)
    features, z = torch.randn(6, 5, *size), torch.randn(6, 3)
    axes = [0, *range(2, 2 + dims)]
    x = torch.einsum("oi,bi...->bo...", head.project.conv.weight.flatten(1), features)
    x = x + head.project.conv.bias.view(-1, *(1,) * dims)
    shift, scale = (z @ head.latent.weight.mT).view(6, 8, *(1,) * dims).split(4, dim=1)
    x = torch.einsum("oi,bi...->bo...", head.layers[0].conv.weight.flatten(1), (x + shift) * (1 + scale))
    x = F.relu((x - x.mean(axes, keepdim=True)) / (x.var(axes, keepdim=True, correction=0) + 1e-5).sqrt())
    torch.testing.assert_close(head(head.project(features), z), head.layers[1](x))


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="spatial_dims is 1"):
        PlainUNet(1, 1, 2)


@pytest.mark.parametrize(("head", "layers"), [(LatentHead, 1), (ModulatedHead, 2)])
def test_a_head_without_nonlinearity_after_the_latent_is_refused(head, layers):
    with pytest.raises(ValueError, match=f"layers is {layers}"):
        head(2, 4, 2, 2, width=4, layers=layers)
