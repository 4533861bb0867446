import math

import pytest
import torch
from monai.losses import DiceLoss
from monai.networks.nets import FullyConnectedNet
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional as F

from monai_flowssn.networks import PromptDecoder
from monai_flowssn.segmenters import P2SAM, TransportedP2SAM
from monai_flowssn.segmenters.p2sam import prompt_losses


class Latent(nn.Module):
    """A prior that is the same for all images: mean 0, deviation 1 at first."""

    def __init__(self, size):
        super().__init__()
        self.parameters_of_z = nn.Parameter(torch.zeros(2 * size))

    def forward(self, image):
        return self.parameters_of_z.expand(len(image), -1)


class Sum(nn.Module):
    """Features plus prompt, as M masks of one channel times 1 .. M."""

    def __init__(self, masks):
        super().__init__()
        self.factors = torch.arange(1.0, masks + 1).view(-1, 1, 1)

    def forward(self, features, prompt):
        return (features + prompt[:, :, None, None]) * self.factors


def simple(kind=P2SAM, **options):
    return kind(nn.Identity(), Sum(3), prior=Latent(1), latent_dim=1, prompt=nn.Identity(), num_masks=3, **options)


def learner(kind, **options):
    torch.manual_seed(0)
    return kind(
        nn.Conv2d(1, 8, 3, padding=1),
        PromptDecoder(2, 8, 2, width=8),
        prior=Latent(2),
        latent_dim=2,
        prompt=FullyConnectedNet(2, 8, [16], act="relu"),
        num_masks=2,
        **options,
    )


def test_the_losses_of_every_pair_are_cross_entropy_focal_and_dice():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 4, (2, 2, 5, 6))
    masks = F.one_hot(labels, 4).movedim(-1, 2)
    losses = prompt_losses(logits, masks)
    assert losses.shape == (2, 3, 2)
    more = {"smooth_nr": 30 / 64, "smooth_dr": 30 / 64}
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, **more)
    for b, i, j in ((0, 0, 0), (1, 2, 1), (1, 0, 0)):
        x, y = logits[b, i][None], labels[b, j][None]
        cross = F.cross_entropy(x, y, reduction="none")
        focal = torch.where(y > 0, 0.25, 0.75) * (1 - (-cross).exp()) ** 2 * cross
        torch.testing.assert_close(losses[b, i, j], cross.mean() + focal.mean() + dice(x, y[:, None]))


def test_for_two_classes_the_focal_loss_is_the_sigmoid_one():
    torch.manual_seed(0)
    z, y = torch.randn(1, 1, 1, 5, 6), torch.randint(0, 2, (5, 6))
    logits, masks = torch.cat([torch.zeros_like(z), z], dim=2), F.one_hot(y, 2).movedim(-1, 0)[None, None]
    p = torch.sigmoid(z[0, 0, 0])
    cross = F.binary_cross_entropy_with_logits(z[0, 0, 0], y.float(), reduction="none")
    p_t, alpha_t = torch.where(y > 0, p, 1 - p), torch.where(y > 0, 0.25, 0.75)
    dice = 1 - (2 * (p * y).sum() + 30 / 64) / (p.sum() + y.sum() + 30 / 64)
    expected = (cross + alpha_t * (1 - p_t) ** 2 * cross).mean() + dice
    torch.testing.assert_close(prompt_losses(logits, masks).squeeze(), expected)


@pytest.mark.parametrize("area", [8, 64, 200])
def test_an_empty_annotation_does_not_outweigh_others_at_an_empty_draw(area):
    """With one pixel in the place of 64 the ratio would be 2 / 65 for 64 pixels."""
    label = torch.zeros(64, 64, dtype=torch.long)
    label.view(-1)[:area] = 1
    logits = torch.zeros(1, 1, 2, 64, 64)
    logits[:, :, 1] = -12.0
    logits.requires_grad_()
    pulls = []
    for each in (label, torch.zeros_like(label)):
        loss = prompt_losses(logits, F.one_hot(each, 2).movedim(-1, 0)[None, None]).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        pulls.append(gradient[0, 0, 1].view(-1)[:area].mean().item())
    towards, away = pulls
    assert towards < 0 < away
    assert -towards > 0.4 * away


@torch.no_grad()
def test_a_draw_is_the_weighted_sum_of_the_masks_for_a_prompt_of_the_prior():
    model = simple()
    assert model.mask_weights.tolist() == pytest.approx([1 / 3] * 3)
    model.free_weights.copy_(torch.tensor([0.5, -0.25]))
    assert model.mask_weights.tolist() == pytest.approx([0.75, 0.5, -0.25])
    model.prior.parameters_of_z.copy_(torch.tensor([0.3, math.log(2)]))
    image, noise = torch.randn(1, 1, 2, 2), torch.randn(1, 4, 1)
    draws = model.sample(image, 4, (noise,))
    logit = image[:, None, 0] + (0.3 + 2 * noise)[..., None]  # (1, N, 2, 2)
    factor = 0.75 * 1 + 0.5 * 2 - 0.25 * 3
    torch.testing.assert_close(draws[:, :, 1], torch.sigmoid(factor * logit))


@torch.no_grad()
def test_the_loss_is_that_of_one_draw_and_one_annotation():
    model, image = simple(), torch.randn(2, 1, 4, 4)
    masks = torch.randint(0, 2, (2, 1, 4, 4))
    torch.manual_seed(2)
    loss = model.loss(image, masks)["loss"]
    torch.manual_seed(2)
    torch.rand(2, 1)  # which annotation
    noise = torch.randn(2, 1, 1)
    logit = 2 * (image + noise[..., None])
    logits = torch.cat([torch.zeros_like(logit), logit], dim=1)
    y = F.one_hot(masks[:, 0], 2).movedim(-1, 1)
    expected = prompt_losses(logits[:, None], y[:, None]).mean()
    torch.testing.assert_close(loss, expected)


@torch.no_grad()
def test_the_transported_loss_of_as_many_draws_as_annotations_is_the_best_assignment():
    model, image = simple(TransportedP2SAM, samples=3), torch.randn(2, 1, 4, 4)
    masks = torch.randint(0, 2, (2, 3, 4, 4))
    torch.manual_seed(2)
    loss = model.loss(image, masks)["loss"].item()
    torch.manual_seed(2)
    noise = torch.randn(2, 3, 1)
    logit = 2 * (image[:, None] + noise[..., None, None])
    losses = prompt_losses(torch.cat([torch.zeros_like(logit), logit], dim=2), F.one_hot(masks, 2).movedim(-1, 2))
    expected = [each[linear_sum_assignment(each)].mean() for each in losses.numpy()]
    assert loss == pytest.approx(sum(expected) / 2, rel=2e-3)  # a draw may receive a thousandth more


@torch.no_grad()
def test_missing_annotations_cost_nothing_in_the_transport():
    model, image = simple(TransportedP2SAM), torch.randn(2, 1, 4, 4)
    two = torch.randint(0, 2, (2, 2, 4, 4))
    missing = torch.full_like(two, -1)
    torch.manual_seed(2)
    loss = model.loss(image, two)["loss"]
    torch.manual_seed(2)
    torch.testing.assert_close(model.loss(image, torch.cat([missing, two], dim=1))["loss"], loss)


def test_empty_annotations_are_left_out_of_cases_that_have_others():
    model = simple(skip_empty=True)
    masks = torch.zeros(3, 3, 2, 2, dtype=torch.int16)
    masks[0, 1, 0, 0] = masks[1, 2] = 1
    masks[1, 0] = -1
    used = model.used(masks)
    assert (used.flatten(2).amin(dim=2) < 0).tolist() == [[True, False, True], [True, True, False], [False] * 3]
    assert torch.equal(used[0, 1], masks[0, 1])
    assert torch.equal(simple().used(masks), masks)


@pytest.mark.parametrize(("kind", "options"), [(P2SAM, {}), (TransportedP2SAM, {"samples": 8})])
def test_draws_differ_with_the_transport_and_hardly_without(kind, options):
    """Half of the raters mark everything, half nothing. A draw of the one objective is as good as its mean; of the other, not."""
    model = learner(kind, **options)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    masks = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).long().expand(8, 2, 4, 4)
    for _ in range(150):
        optimiser.zero_grad()
        model.loss(torch.randn(8, 1, 4, 4), masks)["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        draws = model.sample(torch.randn(4, 1, 4, 4), 200)[:, :, 1].flatten(2).mean(dim=2)  # (B, N)
    if kind is P2SAM:
        assert draws.std(dim=1).max() < 0.1
    else:
        assert draws.std(dim=1).min() > 0.35
        assert 0.35 < (draws > 0.5).float().mean() < 0.65


def test_the_prompt_is_a_vector_or_a_map():
    decoder, features, prompt = PromptDecoder(3, 4, 2, width=4), torch.randn(1, 4, 2, 4, 2), torch.randn(1, 4)
    as_map = prompt[..., None, None, None].expand(1, 4, 2, 4, 2)
    torch.testing.assert_close(decoder(features, prompt), decoder(features, as_map))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: P2SAM(nn.Identity(), Sum(1), prior=Latent(1), latent_dim=1, prompt=nn.Identity(), num_masks=1),
            "at least two",
        ),
        (lambda: simple(TransportedP2SAM, samples=1), "samples is 1; .*pass 2 or more"),
        (lambda: PromptDecoder(2, 4, 2, width=4, layers=0), "layers is 0; .*pass 1 or more"),
    ],
)
def test_wrong_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_parts_with_another_number_of_outputs_are_refused():
    model = simple(num_classes=3)
    with pytest.raises(ValueError, match="the decoder has 3 outputs; 3 masks of 3 classes need 9"):
        model.sample(torch.zeros(1, 1, 2, 2), 1)
    model.latent_dim = 2
    with pytest.raises(ValueError, match=r"the prior has 2 outputs; it needs 2 \* latent_dim = 4"):
        model.sample(torch.zeros(1, 1, 2, 2), 1)
