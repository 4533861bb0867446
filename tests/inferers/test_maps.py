import pytest
import torch
from monai.data import decollate_batch

from monai_flowssn.inferers import DrawInferer, MapInferer
from monai_flowssn.networks import PlainUNet
from monai_flowssn.segmenters import SSN
from monai_flowssn.transforms import collect_draws


def network(spatial_dims=2):
    torch.manual_seed(0)
    net = PlainUNet(spatial_dims, 1, 3 * 4, channels=(4, 8), convs=1)
    return SSN(net, num_classes=3, rank=2).eval()


@pytest.mark.parametrize("size", [(8, 12), (4, 8, 8)])
@pytest.mark.parametrize("draws_at_once", [5, 2])
def test_maps_are_those_of_the_draws(size, draws_at_once):
    image, net = torch.randn(2, 1, *size), network(len(size))
    net.pixels_at_once = draws_at_once * image[0].numel()
    maps = MapInferer(5, spatial_dims=len(size), seed=3, autocast=False)(image, net)
    draws = DrawInferer(5, seed=3, autocast=False)(image, net)
    for i, row in enumerate(draws):
        for name, values in collect_draws([row], torch.empty_like(row[:, 0], dtype=torch.uint8)).items():
            torch.testing.assert_close(maps[name][i], values, msg=name)
    assert maps["labels"].shape == (2, 5, *size)
    assert maps["labels"].dtype == torch.uint8
    assert maps["mean"].shape == (2, 3, *size)
    assert maps["expected_entropy"].shape == (2, *size)


def test_chunks_make_no_difference_to_the_maps():
    draws = torch.rand(7, 3, 4, 5).softmax(dim=1)
    whole, parts = (
        collect_draws(chunks, torch.empty(7, 4, 5, dtype=torch.uint8)) for chunks in ([draws], draws.split(2))
    )
    torch.testing.assert_close(parts, whole)


def test_a_volume_is_drawn_slice_by_slice_with_one_noise():
    image, net = torch.randn(1, 1, 8, 12, 3), network()
    image[..., 2] = image[..., 0]
    maps = MapInferer(5, spatial_dims=2, seed=3)(image, net)
    assert maps["labels"].shape == (1, 5, 8, 12, 3)
    assert torch.equal(maps["mean"][..., 2], maps["mean"][..., 0])
    assert not torch.equal(maps["mean"][..., 1], maps["mean"][..., 0])


@pytest.mark.parametrize("dims", [2, 3])
def test_volumes_whose_draws_are_in_a_file_are_the_same(dims, request):
    image, net = torch.randn(1, 1, 8, 12, 4), network(dims)
    expected = MapInferer(5, spatial_dims=dims, seed=3)(image, net)
    mapped_bytes = request.getfixturevalue("mapped_bytes")
    maps = MapInferer(5, spatial_dims=dims, seed=3)(image, net)
    torch.testing.assert_close(maps, expected, rtol=0, atol=0)
    assert mapped_bytes() >= maps["labels"].numel()


def test_windows_cover_volumes_too():
    maps = MapInferer(2, spatial_dims=2, seed=3, window=(8, 8))(torch.randn(1, 1, 11, 13, 2), network())
    assert maps["mean"].shape == (1, 3, 11, 13, 2)
    torch.testing.assert_close(maps["mean"].sum(dim=1), torch.ones(1, 11, 13, 2))


def test_without_a_seed_every_call_draws_anew_and_with_one_the_global_state_stays():
    image, net = torch.randn(1, 1, 8, 8), network()
    free = MapInferer(2, spatial_dims=2)
    assert not torch.equal(free(image, net)["mean"], free(image, net)["mean"])
    before = torch.get_rng_state()
    MapInferer(2, spatial_dims=2, seed=1)(image, net)
    assert torch.equal(torch.get_rng_state(), before)


def test_maps_of_a_batch_come_apart_by_case():
    maps = MapInferer(2, spatial_dims=2, seed=1)(torch.randn(3, 1, 8, 8), network())
    cases = decollate_batch({"pred": maps})
    assert len(cases) == 3
    assert torch.equal(cases[1]["pred"]["mean"], maps["mean"][1])


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="pass n >= 1"):
        MapInferer(0, spatial_dims=2)
    with pytest.raises(ValueError, match="only a 2-D network draws images of another dimension"):
        MapInferer(1, spatial_dims=3)(torch.randn(1, 1, 8, 8), network())


def test_windows_give_the_same_draws_to_both(monkeypatch):
    monkeypatch.setattr("monai_flowssn.inferers.windows.BYTES_AT_ONCE", 2 * 8 * 3 * 11 * 13)  # two draws
    image, net, options = torch.randn(2, 1, 11, 13), network(), {"seed": 3, "window": (8, 8), "autocast": False}
    maps, draws = MapInferer(5, spatial_dims=2, **options)(image, net), DrawInferer(5, **options)(image, net)
    assert torch.equal(maps["labels"], draws.argmax(dim=2).to(torch.uint8))
