import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_flowssn.inferers import DrawInferer, LossInferer, cpu_autocast


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
