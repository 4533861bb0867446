import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import CenterSpatialCrop
from torch import nn

from monai_flowssn.handlers import standard_metrics
from monai_flowssn.inferers import CentreDrawInferer, DrawInferer, LossInferer, WeightedDrawInferer, cpu_autocast
from monai_flowssn.metrics import compute_ged
from monai_flowssn.transforms import DrawsToMapsd


class Probe(nn.Module):
    """Random draws; remembers the type of its input and the precision it ran in."""

    def look(self, image):
        self.kind = type(image)
        self.precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None

    def chunks(self, image, n):
        return [1] * n

    def draw_noise(self, image, n):
        return (torch.rand(len(image), n, 2, *image.shape[2:]),)

    def sample(self, image, n, noise=None):
        self.look(image)
        return (noise or self.draw_noise(image, n))[0] + image[:, :, None]

    def forward(self, image, masks):
        self.look(image)
        return {"loss": (image - masks).square().mean()}


IMAGE = torch.arange(2 * 16.0).view(2, 1, 4, 4)


@pytest.fixture(params=[True, False], ids=["with bfloat16", "without bfloat16"])
def bfloat16(request, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    return request.param


def test_a_seed_fixes_the_draws_and_leaves_the_global_state():
    before = torch.get_rng_state()
    draws = [DrawInferer(3, seed=seed)(IMAGE, Probe()) for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert draws[0].shape == (2, 3, 2, 4, 4)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_seeded_draws_of_an_image_do_not_depend_on_its_batch():
    infer, network = DrawInferer(3, seed=5), Probe()
    together = infer(IMAGE, network)
    assert torch.equal(infer(IMAGE.flip(0), network).flip(0), together)
    assert torch.equal(torch.cat([infer(row, network) for row in IMAGE.split(1)]), together)
    assert not torch.equal(together[0] - IMAGE[0], together[1] - IMAGE[1])  # each image has noise of its own


def test_without_a_seed_every_call_draws_anew():
    infer, network = DrawInferer(3), Probe()
    assert not torch.equal(infer(IMAGE, network), infer(IMAGE, network))


def test_the_centre_is_drawn_and_background_lies_around_it():
    image, network = torch.rand(2, 1, 8, 9), Probe()
    draws = CentreDrawInferer(3, size=[4, 4], seed=0)(image, network)
    assert draws.shape == (2, 3, 2, 8, 9)
    centre = CenterSpatialCrop([4, 4])
    cropped = torch.stack([centre(each) for each in image]).as_tensor()
    drawn = torch.stack([torch.stack([centre(d).as_tensor() for d in each]) for each in draws])
    torch.testing.assert_close(drawn, DrawInferer(3, seed=0)(cropped, network))
    outside = torch.ones(8, 9, dtype=torch.bool)
    outside[2:6, 2:6] = False
    assert (draws[..., 0, :, :][..., outside] == 1).all()
    assert (draws[..., 1, :, :][..., outside] == 0).all()
    with pytest.raises(ValueError, match="images are of \\(8, 9\\), smaller than the centre of \\(16, 4\\)"):
        CentreDrawInferer(3, size=[16, 4])(image, network)


class Weighted(nn.Module):
    """Two draws, everything and nothing, likely as the image says."""

    def weighted_draws(self, image, n):
        full = torch.ones(len(image), 1, 1, *image.shape[2:])
        draws = torch.cat([torch.cat([1 - full, full], 2), torch.cat([full, 1 - full], 2)], 1)
        share = image.mean(dim=(1, 2, 3))
        return draws, torch.stack([share, 1 - share], 1)


@pytest.mark.filterwarnings("ignore")  # MONAI warns about itself
def test_weights_go_from_the_network_to_the_metrics():
    images = torch.tensor([0.25, 0.5, 1.0])[:, None, None, None].expand(3, 1, 4, 4)
    masks = torch.tensor([[1, 0], [1, 1], [0, 1]])[:, :, None, None].expand(3, 2, 4, 4)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": images[:2], "label": masks[:2]}, {"image": images[2:], "label": masks[2:]}],
        network=Weighted(),
        inferer=WeightedDrawInferer(2, seed=0),
        postprocessing=DrawsToMapsd(),
        key_val_metric=standard_metrics(draws=[2]),
    )
    evaluator.run()
    labels = torch.tensor([1, 0])[None, :, None, None].expand(3, 2, 4, 4)
    weights = torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    expected = compute_ged(labels, masks, weights=weights)
    torch.testing.assert_close(evaluator.state.metric_details["test_ged_v_n2"], expected)
    torch.testing.assert_close(expected, torch.tensor([0.125, 0.5, 0.5]))


def test_weighted_draws_are_not_made_by_windows():
    with pytest.raises(ValueError, match="not by windows of \\[32, 32\\]"):
        WeightedDrawInferer(2, window=[32, 32])


def test_the_network_sees_a_plain_tensor():
    network = Probe()
    draws = DrawInferer(3, seed=0)(MetaTensor(IMAGE), network)
    assert network.kind is torch.Tensor
    assert torch.equal(draws, DrawInferer(3, seed=0)(IMAGE, network))


def test_draws_are_computed_in_bfloat16_where_wanted_and_the_cpu_has_it(bfloat16):
    network = Probe()
    DrawInferer(1)(IMAGE, network)
    assert network.precision == (torch.bfloat16 if bfloat16 else None)
    DrawInferer(1, autocast=False)(IMAGE, network)
    assert network.precision is None


def test_the_loss_is_computed_in_bfloat16_where_wanted_and_the_cpu_has_it(bfloat16):
    network = Probe()
    terms = LossInferer()(IMAGE, network, IMAGE + 2)
    assert terms["loss"].item() == 4
    assert network.precision == (torch.bfloat16 if bfloat16 else None)
    LossInferer(autocast=False)(IMAGE, network, masks=IMAGE)
    assert network.precision is None


@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_other_devices_are_left_to_the_engine(device, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    with cpu_autocast(torch.device(device)):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("n", [0, -2])
def test_no_draws_are_refused(n):
    with pytest.raises(ValueError, match=f"n is {n}; .*pass n >= 1"):
        DrawInferer(n)
