"""What every method must do; the methods are those of `tiny_scales.py`."""

from collections import Counter

import pytest
import torch
from tiny_scales import METHODS, SETTINGS, SIZES, B, Case, N, tiny_network

from monai_flowssn.inferers import windowed_draws
from monai_flowssn.networks import PlainUNet
from monai_flowssn.segmenters import SSN, check_segmenter

DETERMINISTIC = {"unet"}  # all draws are the same map
NO_IMAGE_PASS = {
    "ccdm",
    "cimd",
    "cimd, ancestral",
    "flow_matching",
    "flow_matching, unguided",
    "flowssn_continuous/fixed_prior",
}
LEARNING_RATE = {"ssn/plus_plus": 0.03}  # its draws begin far apart


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def setting(request):
    return request.param


@pytest.fixture(params=METHODS)
def case(request, setting):
    return Case(request.param, setting)


@pytest.fixture(params=METHODS)
def flat_case(request):
    """2-D, K = 2 only, for what does not depend on the setting."""
    return Case(request.param, SETTINGS["2-D, K=2"])


def check_draws(draws, shape):
    assert draws.shape == shape
    assert draws.dtype == torch.float32
    assert ((draws >= 0) & (draws <= 1)).all()
    torch.testing.assert_close(draws.sum(dim=2), torch.ones_like(draws[:, :, 0]))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_passes_and_learns(name):
    lr, deterministic = LEARNING_RATE.get(name, 0.01), name in DETERMINISTIC
    steps = 0 if name == "cimd, ancestral" else 150  # trained as cimd is; it needs more steps of drawing
    check_segmenter(lambda: tiny_network(name, size=(16, 16)), steps=steps, lr=lr, deterministic=deterministic)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("setting", ["2-D, K=4", "3-D, K=4"])
def test_every_method_passes_with_other_axes_and_classes(name, setting):
    dims, channels, k = SETTINGS[setting]
    shape = (channels, *SIZES[dims])
    check_segmenter(
        lambda: tiny_network(name, dims, channels, k), shape=shape, steps=0, deterministic=name in DETERMINISTIC
    )


class Broken(SSN):
    def __init__(self, **options):
        super().__init__(PlainUNet(2, 1, 6, channels=(8, 8), convs=1), num_classes=2, rank=1, **options)


class Inverted(Broken):
    def objective(self, image, masks):
        return super().objective(image, torch.where(masks < 0, masks, 1 - masks))


class Mirrored(Broken):
    def objective(self, image, masks):
        return super().objective(image, masks.flip(-1))


class WithoutNoise(Broken):
    def decode(self, code, noise):
        return super().decode(code, tuple(map(torch.zeros_like, noise)))


class OwnNoise(Broken):
    def decode(self, code, noise):
        return super().decode(code, tuple(map(torch.randn_like, noise)))


class MixedRows(Broken):
    def encode(self, image):
        return super().encode(image - image.mean())


class IdleParameter(Broken):
    def __init__(self):
        super().__init__()
        self.idle = torch.nn.Parameter(torch.zeros(1))


class Logits(Broken):
    def decode(self, code, noise):
        return super().decode(code, noise).log()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Inverted, "inverted or mirrored target"),
        (Mirrored, "inverted or mirrored target"),
        (WithoutNoise, "draws of other noise are the same"),
        (OwnNoise, "the same noise gave other draws"),
        (MixedRows, "an image alone is drawn otherwise than in a batch"),
        (IdleParameter, "the loss does not reach idle"),
        (Logits, "draws are no probabilities"),
    ],
)
def test_what_does_something_else_does_not_pass(kind, message):
    with pytest.raises(ValueError, match=message):
        check_segmenter(kind)


def test_it_leaves_the_random_state():
    state = torch.get_rng_state()
    check_segmenter(Broken)
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_the_image_pass_runs_once_whatever_n(case, monkeypatch):
    calls = Counter()
    for name, child in case.segmenter.named_children():
        child.register_forward_hook(lambda *_, name=name: calls.update([name]))
    encode = case.segmenter.encode
    monkeypatch.setattr(case.segmenter, "encode", lambda image: calls.update(["encode"]) or encode(image))
    case.segmenter.encode(case.image)
    image_pass = dict(calls)
    assert (set(image_pass) == {"encode"}) == (case.name in NO_IMAGE_PASS)
    case.segmenter.pixels_at_once = 1
    for n in (1, 3):
        calls.clear()
        case.segmenter.sample(case.image, n)
        assert {name: calls[name] for name in image_pass} == image_pass


@torch.no_grad()
@pytest.mark.parametrize("r", [1, 7])
def test_any_number_of_raters(flat_case, r):
    assert torch.isfinite(flat_case.segmenter.loss(flat_case.image, flat_case.masks(r))["loss"])


@torch.no_grad()
def test_larger_images_are_drawn_by_windows(case):
    size = tuple(2 * s - 1 for s in case.size)
    image = torch.randn(B, case.channels, *size)
    torch.manual_seed(0)
    draws = torch.cat(list(windowed_draws(case.segmenter, image, N, window=case.size, draws_at_once=2)), dim=1)
    check_draws(draws, (B, N, case.k, *size))
    if case.name not in DETERMINISTIC:
        assert (draws[:, 0] - draws[:, 1]).abs().amax() > 1e-3


@torch.no_grad()
def test_half_precision_changes_little(flat_case):
    noise, masks = flat_case.segmenter.draw_noise(flat_case.image, N), flat_case.masks(2)
    results = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            draws = flat_case.segmenter.sample(flat_case.image, N, noise)
            torch.manual_seed(0)
            results.append((draws, flat_case.segmenter.loss(flat_case.image, masks)["loss"]))
    (draws, loss), (half_draws, half_loss) = results
    check_draws(half_draws, draws.shape)
    assert half_loss.dtype == torch.float32
    assert (half_draws - draws).abs().mean() < 0.02
    torch.testing.assert_close(half_loss, loss, rtol=0.05, atol=0.02)


@torch.no_grad()
def test_forward_is_one_draw_or_the_loss(flat_case):
    torch.manual_seed(1)
    draw = flat_case.segmenter(flat_case.image)
    torch.manual_seed(1)
    torch.testing.assert_close(draw, flat_case.segmenter.sample(flat_case.image, 1)[:, 0], rtol=0, atol=0)
    assert draw.shape == (B, flat_case.k, *flat_case.size)
    masks = flat_case.masks(3)
    torch.manual_seed(1)
    terms = flat_case.segmenter(flat_case.image, masks)
    torch.manual_seed(1)
    torch.testing.assert_close(terms, flat_case.segmenter.loss(flat_case.image, masks), rtol=0, atol=0)


@torch.no_grad()
def test_the_state_dict_is_the_whole_state(flat_case):
    noise = flat_case.segmenter.draw_noise(flat_case.image, N)
    again = flat_case.build()
    start = again.sample(flat_case.image, N, noise)
    again.load_state_dict(flat_case.segmenter.state_dict())
    draws = flat_case.segmenter.sample(flat_case.image, N, noise)
    assert (start - draws).abs().amax() > 1e-3
    torch.testing.assert_close(again.sample(flat_case.image, N, noise), draws, rtol=0, atol=0)


@torch.no_grad()
def test_a_size_that_cannot_be_halved_is_refused_with_the_fix(flat_case):
    odd = flat_case.image[..., :-1]
    with pytest.raises(ValueError, match="pad the image to"):
        flat_case.segmenter.sample(odd, 1)
    with pytest.raises(ValueError, match="pad the image to"):
        flat_case.segmenter.loss(odd, flat_case.masks(1)[..., :-1])


@torch.no_grad()
def test_no_draws_and_wrong_noise_are_refused(flat_case):
    segmenter, image = flat_case.segmenter, flat_case.image
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"n is {n}; .*n >= 1"):
            segmenter.sample(image, n)
    if flat_case.name not in DETERMINISTIC:
        for noise in (segmenter.draw_noise(image, 2), segmenter.draw_noise(image[:1], 3)):
            with pytest.raises(ValueError, match=r"must begin with \(B, N\) = \(2, 3\): use draw_noise"):
                segmenter.sample(image, 3, noise)


@torch.no_grad()
def test_the_loss_refuses_masks_that_it_would_misread(flat_case):
    k = flat_case.segmenter.num_classes
    masks = flat_case.masks(2)
    for bad, message in [
        (masks + 0.5, "fractions"),
        (torch.full_like(masks, k), f"class id {k}"),
        (masks[:, 0], "must be"),
        (masks[:1], "the same B"),
    ]:
        with pytest.raises(ValueError, match=message):
            flat_case.segmenter.loss(flat_case.image, bad)
