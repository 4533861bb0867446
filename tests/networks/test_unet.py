import math

import pytest
import torch
from torch import nn

from monai_flowssn.networks import StreamlinedUNet
from monai_flowssn.networks.unet import Attention, ResidualBlock


def count(net):
    return sum(p.numel() for p in net.parameters())


def perturb(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def test_the_parameter_counts_of_the_paper():
    with torch.device("meta"):
        base = StreamlinedUNet(2, 1, 2, channels=(32, 64, 128, 256))
        flow = StreamlinedUNet(2, 2, 2, channels=(16, 16, 16), time=True, head_width=16)
    assert round(count(base) / 1e6, 2) == 13.59
    assert count(flow) == 150_514


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_output_is_zero_at_the_start_and_has_the_size_of_the_input(dims, time):
    torch.manual_seed(0)
    net = StreamlinedUNet(dims, 2, 3, channels=(4, 6, 8), time=time)
    size = (8, 4, 12)[:dims]
    args = (torch.randn(2, 2, *size), *([torch.rand(2)] if time else []))
    assert torch.equal(net(*args), torch.zeros(2, 3, *size))
    out = perturb(net)(*args)
    assert out.shape == (2, 3, *size)
    assert out.std() > 1e-3


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("channels", [(4,), (4, 4), (4, 8, 4)])
def test_every_skip_is_used(channels, blocks):
    net = StreamlinedUNet(2, 1, 2, channels=channels, blocks=blocks, attention=False)
    assert net(torch.zeros(1, 1, 8, 8)).shape == (1, 2, 8, 8)
    levels = len(channels)
    joined = [b for b in net.decoder if not isinstance(b.resample, nn.Upsample)]
    assert len(joined) == 1 + levels * blocks + levels - 1 == levels * (blocks + 1)  # stem, blocks, downsamplings


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("patch", [2, 3])
def test_patches_keep_the_order_of_the_pixels(dims, patch):
    net = StreamlinedUNet(dims, 2, 2, channels=(4,), patch=patch, attention=False)
    stem_input = []
    net.stem.register_forward_pre_hook(lambda _, args: stem_input.append(args[0]))
    net.head.register_forward_hook(lambda *_: stem_input[0])  # as if the network between them were the identity
    x = torch.arange(2 * 2 * 6**dims, dtype=torch.float32).view(2, 2, *(6,) * dims)
    assert torch.equal(net(x), x)
    assert stem_input[0].shape == (2, 2 * patch**dims, *(6 // patch,) * dims)
    corner = x[0, 0][(slice(patch),) * dims].flatten()  # one position of the stem sees one patch
    assert set(corner.tolist()) <= set(stem_input[0][(0, slice(None), *(0,) * dims)].tolist())


def test_patches_predict_every_pixel():
    torch.manual_seed(0)
    net = perturb(StreamlinedUNet(2, 1, 2, channels=(4, 8), patch=2))
    out = net(torch.randn(1, 1, 8, 12))
    assert out.shape == (1, 2, 8, 12)
    blocks = out.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert blocks.std(dim=4).min() > 0


def test_time_changes_the_output_of_its_own_row_only():
    torch.manual_seed(0)
    net = perturb(StreamlinedUNet(2, 1, 2, channels=(4, 8), time=True))
    x = torch.randn(2, 1, 4, 4)
    a, b = net(x, torch.tensor([0.2, 0.5])), net(x, torch.tensor([0.2, 0.9]))
    torch.testing.assert_close(a[0], b[0])
    assert (a[1] - b[1]).abs().max() > 1e-4


def test_time_scales_and_shifts_the_second_norm():
    torch.manual_seed(0)
    options = {"dropout": 0.0, "resample": nn.Identity()}
    timed = ResidualBlock(2, 4, 4, time_width=3, **options)
    plain = ResidualBlock(2, 4, 4, time_width=0, **options)
    nn.init.normal_(timed.conv2.weight)
    plain.load_state_dict({k: v for k, v in timed.state_dict().items() if not k.startswith("film")})
    with torch.no_grad():  # scale 2 and shift 3 whatever the time; as an affine of the norm: weight 1 + 2, bias 3
        timed.film.weight.zero_()
        timed.film.bias.copy_(torch.tensor([2.0] * 4 + [3.0] * 4))
        plain.norm2.weight.fill_(3.0)
        plain.norm2.bias.fill_(3.0)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(timed(x, torch.randn(2, 3)), plain(x))


@pytest.mark.parametrize(("resample", "expected"), [(nn.Identity(), lambda x: x), (nn.AvgPool2d(2), nn.AvgPool2d(2))])
def test_a_block_starts_as_its_shortcut(resample, expected):
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(ResidualBlock(2, 4, 4, time_width=0, dropout=0.1, resample=resample)(x), expected(x))


def test_a_group_of_the_norms_has_16_channels_where_they_divide():
    net = StreamlinedUNet(2, 1, 2, channels=(8, 32, 50))
    groups = {norm.num_channels: norm.num_groups for norm in net.modules() if isinstance(norm, nn.GroupNorm)}
    assert groups == {8: 1, 32: 2, 50: 1, 50 + 50: 1, 50 + 32: 1, 32 + 8: 2, 8 + 8: 1}


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="pass an even width"):
        StreamlinedUNet(2, 1, 2, channels=(5, 8), time=True)
    with pytest.raises(ValueError, match="50 channels make no equal heads of 16"):
        StreamlinedUNet(2, 1, 2, channels=(50,), head_width=16)


@pytest.mark.parametrize(("channels", "head_width", "heads"), [(8, 8, 1), (8, 4, 2), (4, 64, 1)])
@pytest.mark.parametrize("size", [(3, 2), (2, 2, 3)])
def test_attention_is_softmax_of_qk_times_v(channels, head_width, heads, size):
    torch.manual_seed(0)
    attention = Attention(channels, head_width).double()
    nn.init.normal_(attention.out.weight)
    nn.init.normal_(attention.out.bias)
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    width = channels // heads
    for b in range(2):
        h = attention.norm(x)[b].flatten(1).T  # (P, C)
        q, k, v = (h @ w.T + c for w, c in zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True))
        out = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = (q[:, part] @ k[:, part].T / math.sqrt(width)).softmax(dim=1)
            out.append(weights @ v[:, part])
        out = torch.cat(out, dim=1) @ attention.out.weight.T + attention.out.bias
        torch.testing.assert_close(attention(x)[b], x[b] + out.T.view_as(x[b]))


def test_without_attention_there_is_none():
    net = StreamlinedUNet(2, 1, 2, channels=(4, 8), attention=False)
    assert not any(isinstance(module, Attention) for module in net.modules())


@pytest.mark.parametrize("time", [False, True])
def test_time_is_needed_exactly_if_the_network_has_it(time):
    net = StreamlinedUNet(2, 1, 2, channels=(4,), time=time)
    assert hasattr(net, "time") == time
    with pytest.raises(ValueError, match=f"built with time={time}"):
        net(torch.zeros(1, 1, 4, 4), None if time else torch.zeros(1))


@pytest.mark.parametrize(
    ("size", "patch", "divisor", "fit"),
    [((9, 8), 1, 4, "(12, 8)"), ((8, 6), 1, 4, "(8, 8)"), ((8, 12), 2, 8, "(8, 16)")],
)
def test_a_size_that_cannot_be_halved_is_refused_with_the_fix(size, patch, divisor, fit):
    net = StreamlinedUNet(2, 1, 2, channels=(4, 4, 4), patch=patch)
    with pytest.raises(ValueError) as error:
        net(torch.zeros(1, 1, *size))
    assert f"divisible by {divisor} " in str(error.value)
    assert f"pad the image to {fit}" in str(error.value)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 1, 4, 4, 4), (1, 3, 4, 4)])
def test_an_input_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"takes \(B, 1, \*S\)"):
        StreamlinedUNet(2, 1, 2, channels=(4,))(torch.zeros(shape))


def test_one_dimension_is_refused():
    with pytest.raises(ValueError, match=r"spatial_dims is 1; .*pass 2 or 3"):
        StreamlinedUNet(1, 1, 2)
