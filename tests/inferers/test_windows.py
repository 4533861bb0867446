"""Draws by windows are those of the whole image where the network looks no further than it must, and have no seams."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_flowssn.inferers import DrawInferer, padded_size, windowed_draws
from monai_flowssn.segmenters import StochasticSegmenter


class Pixelwise(StochasticSegmenter):
    """Each pixel depends on its own noise, on coarse noise with a stride, and on a latent vector; records what it is shown."""

    def __init__(self, stride=4, num_classes=3):
        super().__init__(num_classes=num_classes)
        self.stride, self.shown = stride, []
        self.scale = nn.Parameter(torch.tensor(1.0))

    def objective(self, image, masks):
        raise NotImplementedError

    def draw_noise(self, image, n):
        fine, coarse = image.shape[2:], [s // self.stride for s in image.shape[2:]]
        b, k = len(image), self.num_classes
        return torch.randn(b, n, k, *fine), torch.randn(b, n, k, *coarse), torch.randn(b, n, k)

    def encode(self, image):
        self.shown.append(tuple(image.shape[2:]))
        return (image[:, :1],)

    def decode(self, code, noise):
        (image,), (fine, coarse, latent) = code, noise
        logits = (
            fine + F.interpolate(coarse, scale_factor=self.stride) + image * latent[(...,) + (None,) * (image.ndim - 2)]
        )
        return (self.scale * logits).softmax(dim=1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "window"), [((40, 24), (16, 16)), ((16, 16), (16, 16)), ((24, 16, 20), (8, 8, 8)), ((33, 18), (16, 8))]
)
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_pixelwise_method_draws_the_same_by_windows(size, window, overlap):
    torch.manual_seed(0)
    network, image, n = Pixelwise(), torch.randn(2, 1, *size), 5
    padded = padded_size(size, window, 4)
    noise = network.draw_noise(torch.zeros(2, 1, *padded), n)
    whole = F.pad(image, [e for s, p in zip(size[::-1], padded[::-1]) for e in (0, p - s)], mode="replicate")
    expected = network.sample(whole, n, noise)[(..., *(slice(s) for s in size))]
    network.shown.clear()
    chunks = list(windowed_draws(network, image, n, window=window, overlap=overlap, draws_at_once=2, noise=noise))
    assert [chunk.shape[1] for chunk in chunks] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(chunks, dim=1), expected)
    assert set(network.shown) == {window}


@torch.no_grad()
def test_an_image_smaller_than_the_window_is_padded():
    draws = DrawInferer(3, window=(16, 16))(torch.randn(1, 1, 10, 7), Pixelwise())
    assert draws.shape == (1, 3, 3, 10, 7)
    torch.testing.assert_close(draws.sum(dim=2), torch.ones(1, 3, 10, 7))


def roughness(draws, columns):
    """Mean difference of neighbours across the given columns."""
    return (draws[..., columns, :] - draws[..., [c - 1 for c in columns], :]).abs().mean().item()


@torch.no_grad()
def test_seams_are_no_rougher_than_the_inside_and_with_noise_of_their_own_they_are():
    """The noise decides by smooth blobs: a convolution of the field, which windows see but for their edge."""

    class Blobs(Pixelwise):
        def draw_noise(self, image, n):
            return (torch.randn(len(image), n, self.num_classes, *image.shape[2:]),)

        def decode(self, code, noise):
            smooth = F.avg_pool2d(noise[0], 5, stride=1, padding=2, count_include_pad=False)
            return (20 * smooth).softmax(dim=1)

    torch.manual_seed(0)
    network, image = Blobs(num_classes=2), torch.zeros(1, 1, 96, 32)
    coherent = torch.cat(list(windowed_draws(network, image, 40, window=(32, 32), overlap=0.25)), dim=1)
    alone = torch.cat([network.sample(image[..., i : i + 32, :], 40) for i in (0, 32, 64)], dim=-2)
    inside = [c for c in range(4, 96) if min(abs(c - b) for b in (32, 64)) > 4]
    borders = [21, 32, 43, 53, 64, 75]  # where windows of either kind begin or end
    assert roughness(coherent, borders) < 1.1 * roughness(coherent, inside)
    assert roughness(alone, [32, 64]) > 1.5 * roughness(alone, inside)


@torch.no_grad()
def test_a_latent_vector_is_the_same_in_all_windows():
    class Global(Pixelwise):
        def draw_noise(self, image, n):
            return (torch.randn(len(image), n, 1),)

        def decode(self, code, noise):
            foreground = (noise[0] > 0).float()[..., None, None].expand_as(code[0])
            return torch.cat([1 - foreground, foreground], dim=1)

    draws = DrawInferer(20, window=(8, 8))(torch.zeros(1, 1, 32, 32), Global(num_classes=2))[:, :, 1]
    torch.testing.assert_close(draws, draws[..., :1, :1].expand_as(draws))
    assert 0 < draws.mean() < 1


@torch.no_grad()
def test_the_same_seed_gives_the_same_draws():
    image, network = torch.randn(1, 1, 40, 40), Pixelwise()
    first, second = (DrawInferer(3, seed=1, window=(16, 16))(image, network) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("options", [{"window": (16,)}, {"window": (0, 16)}, {"window": (16, 16), "overlap": 1.0}])
def test_windows_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="one positive size per axis"):
        next(windowed_draws(Pixelwise(), torch.zeros(1, 1, 32, 32), 1, **options))
