import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_flowssn.handlers import WarmUpEMAHandler
from monai_flowssn.networks.phiseg_nets import GaussianLadder, LadderDecoder
from monai_flowssn.segmenters.phiseg import PHiSeg


def phiseg(dims=2, k=2, *, channels=(4, 6, 8), norm="batch"):
    options = {"channels": channels, "latent_levels": 2, "norm": norm}
    prior, posterior = GaussianLadder(dims, 1, **options), GaussianLadder(dims, 1 + k, **options)
    return PHiSeg(prior, posterior, decoder=LadderDecoder(dims, k, **options), num_classes=k)


def perturbed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(("dims", "size"), [(2, (8, 12)), (3, (4, 8, 4))])
def test_every_level_has_its_resolution(dims, size):
    model, image = phiseg(dims, 3), torch.randn(2, 1, *size)
    full, half, quarter = (tuple(s // 2**level for s in size) for level in range(3))
    noise = model.draw_noise(image, 5)
    assert [part.shape for part in noise] == [(2, 5, 2, *half), (2, 5, 2, *quarter)]
    assert [part.shape for part in model.encode(image)] == [(2, 6, *half), (2, 8, *quarter)]
    assert [part.shape for part in model.decoder([part[:, 0] for part in noise])] == [(2, 3, *full), (2, 3, *half)]


def test_the_default_is_the_published_hierarchy():
    with torch.device("meta"):
        ladder = GaussianLadder(2, 1)
        shapes = [tuple(part.shape) for part in ladder(torch.empty(2, 1, 128, 128))]
    assert shapes == [(2, 128, 32, 32), (2, 192, 16, 16), (2, 192, 8, 8), (2, 192, 4, 4), (2, 192, 2, 2)]


@torch.no_grad()
def test_a_latent_is_given_the_next_coarser_one_alone():
    torch.manual_seed(0)
    ladder = perturbed(GaussianLadder(2, 1, channels=(4, 4, 4), latent_levels=3))
    features = ladder(torch.randn(1, 1, 8, 8))
    given = [torch.randn(1, 2, 8 // stride, 8 // stride) for stride in ladder.strides]

    def means(latents):
        return [gaussian.mean for gaussian in ladder.descend(features, lambda level, _: latents[level])[1]]

    before = means(given)
    for changed in range(3):
        after = means([part + 1 if level == changed else part for level, part in enumerate(given)])
        differs = [not torch.equal(a, b) for a, b in zip(after, before, strict=True)]
        assert differs == [level == changed - 1 for level in range(3)]


@torch.no_grad()
def test_the_noise_of_every_level_changes_the_draw():
    torch.manual_seed(0)
    model, image = perturbed(phiseg()), torch.randn(1, 1, 8, 8)
    noise = model.draw_noise(image, 1)
    draw = model.sample(image, 1, noise)
    for changed in range(2):
        other = tuple(-part if level == changed else part for level, part in enumerate(noise))
        assert (model.sample(image, 1, other) - draw).abs().max() > 1e-3


@torch.no_grad()
def test_a_draw_is_the_softmax_of_the_logits_of_all_levels():
    torch.manual_seed(0)
    model, own = perturbed(phiseg(k=3)), []
    for head in model.decoder.heads:
        head.register_forward_hook(lambda _, __, logits: own.append(logits))
    draw = model.sample(torch.randn(2, 1, 8, 8), 1)[:, 0]
    coarse, fine = own
    assert coarse.shape == (2, 3, 4, 4)
    total = fine + coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(draw, total.softmax(dim=1))


def one_level(ladder, features, level, coarser):
    """Mean and log standard deviation of one level, put together from the parts of the ladder."""
    h = features[level]
    if coarser is not None:
        h = ladder.merge[level](torch.cat([h, ladder.rise[level](ladder.up(coarser))], dim=1))
    return ladder.heads[level](h).chunk(2, dim=1)


def divergence(mean_q, log_q, mean_p, log_p):
    """The textbook KL of two Gaussians, summed."""
    return (log_p - log_q + ((2 * log_q).exp() + (mean_q - mean_p) ** 2) / (2 * (2 * log_p).exp()) - 0.5).sum()


def cross_entropy(logits, mask):
    """Mean over the pixels, with every pixel of logits (B, K, *s) standing for a block of the mask (B, *S)."""
    for axis in range(1, mask.ndim):
        logits = logits.repeat_interleave(mask.shape[axis] // logits.shape[axis + 1], dim=axis + 1)
    return -logits.log_softmax(dim=1).gather(1, mask[:, None]).mean()


@torch.no_grad()
@pytest.mark.parametrize(("dims", "size"), [(2, (8, 4)), (3, (4, 4, 8))])
def test_the_loss_is_deep_supervision_and_weighted_kl_per_pixel(dims, size, monkeypatch):
    torch.manual_seed(0)
    model, image = perturbed(phiseg(dims, 3)), torch.randn(2, 1, *size)
    masks, noise = torch.randint(0, 3, (2, 1, *size)), model.draw_noise(image, 1)
    monkeypatch.setattr(model, "draw_noise", lambda image, n: noise)
    terms = model.loss(image, masks)

    mask = masks[:, 0]
    y = torch.eye(3)[mask].movedim(-1, 1) - 0.5
    seen_by_q, seen_by_p = model.posterior(torch.cat([image, y], dim=1)), model.prior(image)
    coarser, latents, kl = None, [], []
    for level in (1, 0):
        q = one_level(model.posterior, seen_by_q, level, coarser)
        p = one_level(model.prior, seen_by_p, level, coarser)
        coarser = q[0] + q[1].exp() * noise[level][:, 0]
        latents.insert(0, coarser)
        kl.insert(0, divergence(*q, *p) / mask.numel())
    fine, coarse = (cross_entropy(logits, mask) for logits in model.decoder(latents))
    torch.testing.assert_close(terms["cross_entropy"], fine)
    torch.testing.assert_close(terms["kl_1"], kl[0])
    torch.testing.assert_close(terms["kl_2"], kl[1])
    torch.testing.assert_close(terms["loss"], fine + coarse + kl[0] + 2**dims * kl[1])


@pytest.mark.parametrize(("narrow", "wide"), [("prior", "posterior"), ("posterior", "prior")])
def test_the_loss_and_its_gradients_are_finite_at_the_bounds_of_the_deviations(narrow, wide):
    torch.manual_seed(0)
    model, image = phiseg(), torch.randn(2, 1, 8, 8)
    for name, log_std in ((narrow, -1e4), (wide, 1e4)):
        for head in getattr(model, name).heads:
            nn.init.constant_(head.bias[2:], log_std)
    _, gaussians = model.prior.descend(model.prior(image), lambda level, gaussian: gaussian.mean)
    bound = torch.tensor(-10.0 if narrow == "prior" else 10.0).exp()
    assert all(torch.equal(gaussian.stddev, bound.expand_as(gaussian.stddev)) for gaussian in gaussians)
    terms = model.loss(image, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    terms["loss"].backward()
    assert torch.isfinite(terms["loss"])
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@torch.no_grad()
def test_draws_do_not_need_the_posterior():
    torch.manual_seed(0)
    model, image = perturbed(phiseg()), torch.randn(1, 1, 8, 8)
    noise = model.draw_noise(image, 2)
    before = model.sample(image, 2, noise)
    perturbed(model.posterior)
    assert torch.equal(model.sample(image, 2, noise), before)


@pytest.mark.parametrize("norm", ["batch", ("group", {"num_groups": 2}), None])
def test_the_averaged_model_draws_with_every_norm(norm):
    torch.manual_seed(0)
    model, image = phiseg(norm=norm).train(), torch.randn(2, 1, 8, 8)
    ema = WarmUpEMAHandler(model, decay=0.9)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)

    def step(engine, batch):
        optimiser.zero_grad()
        model.loss(image, torch.randint(0, 2, (2, 3, 8, 8)))["loss"].backward()
        optimiser.step()

    trainer = Engine(step)
    ema.attach(trainer)
    trainer.run([0] * 3)
    assert torch.isfinite(ema.ema_model.sample(image[:1], 2)).all()
    for averaged, buffer in zip(ema.ema_model.buffers(), model.buffers(), strict=True):
        assert torch.equal(averaged, buffer)  # running statistics of the batch norm


def test_both_of_two_modes_are_learnt_and_nothing_between_them():
    torch.manual_seed(0)
    model = phiseg(channels=(8, 8, 8)).train()  # the coarser latent is one position
    image = torch.zeros(16, 1, 4, 4)
    left = torch.zeros(4, 4, dtype=torch.long)
    left[:, :2] = 1
    masks = torch.stack([left, 1 - left]).expand(16, 2, 4, 4)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        model.loss(image, masks)["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        draws = model.eval().sample(image[:1], 200)[0].argmax(dim=1)  # (N, *S)
    shares = [(draws == mode).flatten(1).all(dim=1).float().mean().item() for mode in (left, 1 - left)]
    assert min(shares) > 0.25
    assert sum(shares) > 0.8


@pytest.mark.parametrize("levels", [0, 4])
def test_more_latents_than_levels_are_refused(levels):
    for build in (GaussianLadder, LadderDecoder):
        with pytest.raises(ValueError, match=rf"latent_levels is {levels} on 3 levels .*at least 1 and at most one"):
            build(2, 1, channels=(4, 4, 4), latent_levels=levels)


def test_a_size_that_cannot_be_halved_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"divisible by 4 .*pad the image to \(12, 8\)"):
        phiseg().sample(torch.zeros(1, 1, 10, 8), 1)


def test_a_decoder_with_another_number_of_outputs_is_refused():
    model = phiseg()
    model.num_classes = 3
    with pytest.raises(ValueError, match="the decoder has 2 outputs; it needs num_classes = 3"):
        model.sample(torch.zeros(1, 1, 8, 8), 1)
