import pytest
import torch

from monai_flowssn.networks import StripTransformer


def net(dims=2, size=(4, 8), strip=(2, 4), **options):
    torch.manual_seed(0)
    result = StripTransformer(dims, 2, 3, spatial_size=size, strip=strip, width=8, **options)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return result.eval()


@pytest.mark.parametrize(
    ("dims", "size", "strip"), [(2, (4, 8), (1, 8)), (2, (4, 8), (2, 2)), (3, (4, 4, 2), (2, 2, 1))]
)
def test_a_strip_sees_all_strips_before_it_and_nothing_else(dims, size, strip):
    model, x = net(dims, size, strip, blocks=2, heads=2), torch.randn(1, 2, *size, requires_grad=True)
    out = model(x)
    assert out.shape == (1, 3, *size)
    grids = torch.meshgrid(*(torch.arange(s) // p for s, p in zip(size, strip)), indexing="ij")
    order = sum(g * n for g, n in zip(grids, [int(torch.tensor(model.grid[i + 1 :]).prod()) for i in range(dims)]))
    for strip_index in range(int(order.max()) + 1):
        (gradient,) = torch.autograd.grad(out[0, :, order == strip_index].sum(), x, retain_graph=True)
        touched = gradient[0].abs().sum(dim=0) > 0
        assert torch.equal(touched, order < strip_index)


def test_the_context_reaches_its_own_strip():
    model = net(context_channels=1)
    context = torch.randn(1, 1, 4, 8, requires_grad=True)
    out = model(torch.randn(1, 2, 4, 8), context)
    (gradient,) = torch.autograd.grad(out[..., :2, :4].sum(), context)
    assert (gradient[0, 0, :2, :4] != 0).all()
    assert not gradient[0, 0, 2:].any()


def test_the_published_sizes():
    lidc = StripTransformer(2, 2, 4, spatial_size=(128, 128), strip=(1, 8))
    refuge = StripTransformer(2, 2, 4, spatial_size=(256, 256), strip=(8, 8), width=128, blocks=2)
    assert lidc.positions.shape[1] == 2048
    assert refuge.positions.shape[1] == 1024


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not tile"):
        net(strip=(3, 4))
    with pytest.raises(ValueError, match="one size per axis"):
        net(strip=(2,))
    with pytest.raises(ValueError, match="divisor"):
        net(heads=3)
    with pytest.raises(ValueError, match=r"crop or pad the image to \(4, 8\)"):
        net()(torch.zeros(1, 2, 4, 4))
