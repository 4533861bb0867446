"""What every method must do; the methods are those of `tiny_methods.py`."""

from collections import Counter

import pytest
import torch
from tiny_methods import METHODS, SETTINGS, B, Case, N

from monai_flowssn.inferers import windowed_draws

DETERMINISTIC = {"deterministic U-Net"}  # all draws are the same map
NO_IMAGE_PASS = {
    "CCDM",
    "autoregressive fixed prior",
    "continuous fixed prior",
    "flow matching",
    "flow matching unguided",
}


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


@torch.no_grad()
def test_draws_are_probability_maps(case):
    check_draws(case.segmenter.sample(case.image, N), (B, N, case.k, *case.size))


@torch.no_grad()
def test_noise_begins_with_batch_and_draws_and_decides_them(case):
    first, second = (case.segmenter.draw_noise(case.image, N) for _ in range(2))
    assert all(part.shape[:2] == (B, N) for part in first)
    draws = case.segmenter.sample(case.image, N, first)
    torch.testing.assert_close(case.segmenter.sample(case.image, N, first), draws, rtol=0, atol=0)
    other = case.segmenter.sample(case.image, N, second)
    if case.name in DETERMINISTIC:
        torch.testing.assert_close(other, draws, rtol=0, atol=0)
    else:
        assert (other - draws).abs().amax() > 1e-3
        assert (draws[:, 0] - draws[:, 1]).abs().amax() > 1e-3


@torch.no_grad()
def test_draws_depend_on_the_image(case):
    noise = case.segmenter.draw_noise(case.image, N)
    draws = case.segmenter.sample(case.image, N, noise)
    other = case.segmenter.sample(torch.randn_like(case.image), N, noise)
    assert (other - draws).flatten(1).abs().amax(dim=1).min() > 1e-4


@torch.no_grad()
def test_chunks_change_nothing(case):
    noise = case.segmenter.draw_noise(case.image, 5)
    whole = case.segmenter.sample(case.image, 5, noise)
    case.segmenter.pixels_at_once = 2 * B * case.image[0, 0].numel()  # 2 + 2 + 1 draws
    torch.testing.assert_close(case.segmenter.sample(case.image, 5, noise), whole)
    check_draws(case.segmenter.sample(case.image, 5), whole.shape)  # fresh noise, chunk by chunk


@torch.no_grad()
def test_each_image_of_a_batch_stands_alone(case):
    noise = case.segmenter.draw_noise(case.image, N)
    alone = case.segmenter.sample(case.image[1:], N, tuple(part[1:] for part in noise))
    torch.testing.assert_close(case.segmenter.sample(case.image, N, noise)[1:], alone)


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


def test_the_loss_is_finite_and_reaches_every_parameter(case):
    terms = case.segmenter.train().loss(case.image, case.masks(2))
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    terms["loss"].backward()
    parameters = dict(case.segmenter.named_parameters())
    assert parameters
    assert not [name for name, p in parameters.items() if p.grad is None or not p.grad.any()]
    assert all(torch.isfinite(p.grad).all() for p in parameters.values())


def test_training_starts_from_the_initial_parameters_and_learns(flat_case):
    segmenter, masks = flat_case.build().train(), torch.zeros(B, 2, *flat_case.size, dtype=torch.uint8)
    optimiser = torch.optim.AdamW(segmenter.parameters(), 5e-2)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        losses.append(segmenter(flat_case.image, masks)["loss"])
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]


@torch.no_grad()
@pytest.mark.parametrize("r", range(1, 8))
def test_any_number_of_raters(flat_case, r):
    assert torch.isfinite(flat_case.segmenter.loss(flat_case.image, flat_case.masks(r))["loss"])


@torch.no_grad()
def test_missing_raters_are_ignored(case):
    masks = torch.full((B, 6, *case.size), -1, dtype=torch.int16)
    masks[0, 4] = masks[1, 1] = masks[1, 3] = 0
    losses = [case.segmenter.loss(case.image, masks)["loss"] for _ in range(4)]
    assert torch.isfinite(torch.stack(losses)).all()
    masks[1] = -1
    with pytest.raises(ValueError, match="none of the 6 raters annotated it"):
        case.segmenter.loss(case.image, masks)


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
def test_forward_is_one_draw_or_the_loss(case):
    torch.manual_seed(1)
    draw = case.segmenter(case.image)
    torch.manual_seed(1)
    torch.testing.assert_close(draw, case.segmenter.sample(case.image, 1)[:, 0], rtol=0, atol=0)
    assert draw.shape == (B, case.k, *case.size)
    masks = case.masks(3)
    torch.manual_seed(1)
    terms = case.segmenter(case.image, masks)
    torch.manual_seed(1)
    torch.testing.assert_close(terms, case.segmenter.loss(case.image, masks), rtol=0, atol=0)


@torch.no_grad()
def test_the_state_dict_is_the_whole_state(case):
    noise = case.segmenter.draw_noise(case.image, N)
    again = case.build()
    start = again.sample(case.image, N, noise)
    again.load_state_dict(case.segmenter.state_dict())
    draws = case.segmenter.sample(case.image, N, noise)
    assert (start - draws).abs().amax() > 1e-3
    torch.testing.assert_close(again.sample(case.image, N, noise), draws, rtol=0, atol=0)


@torch.no_grad()
def test_a_size_that_cannot_be_halved_is_refused_with_the_fix(case):
    odd = case.image[..., :-1]
    with pytest.raises(ValueError, match="pad the image to"):
        case.segmenter.sample(odd, 1)
    with pytest.raises(ValueError, match="pad the image to"):
        case.segmenter.loss(odd, case.masks(1)[..., :-1])


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
def test_the_loss_refuses_masks_that_it_would_misread(case):
    k = case.segmenter.num_classes
    masks = case.masks(2)
    for bad, message in [
        (masks + 0.5, "fractions"),
        (torch.full_like(masks, k), f"class id {k}"),
        (masks[:, 0], "must be"),
        (masks[:1], "the same B"),
    ]:
        with pytest.raises(ValueError, match=message):
            case.segmenter.loss(case.image, bad)
