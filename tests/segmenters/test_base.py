import pytest
import torch

from monai_flowssn.segmenters import StochasticSegmenter


class Echo(StochasticSegmenter):
    """The draw is the code of its image plus its noise; remembers how many rows were decoded at once."""

    def __init__(self):
        super().__init__(num_classes=2)
        self.rows = []

    def objective(self, image, masks):
        return {"loss": image.sum()}

    def draw_noise(self, image, n):
        return (torch.rand(len(image), n, 2, *image.shape[2:]),)

    def encode(self, image):
        return (image,)

    def decode(self, code, noise):
        self.rows.append(len(noise[0]))
        return code[0] + noise[0]


def test_rows_of_code_and_noise_stay_together():
    segmenter = Echo()
    image = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    noise = torch.arange(15.0).view(3, 5, 1, 1, 1).expand(3, 5, 2, 4, 4)
    segmenter.pixels_at_once = 2 * 3 * 16  # two draws of the three images
    draws = segmenter.sample(image, 5, (noise,))
    torch.testing.assert_close(draws, image[:, None] + noise, rtol=0, atol=0)
    assert segmenter.rows == [6, 6, 3]


def test_an_image_larger_than_a_chunk_is_still_decoded():
    segmenter = Echo()
    segmenter.pixels_at_once = 1
    segmenter.sample(torch.zeros(2, 1, 4, 4), 3)
    assert segmenter.rows == [2, 2, 2]


def test_one_class_is_refused():
    class OneClass(Echo):
        def __init__(self):
            StochasticSegmenter.__init__(self, num_classes=1)

    with pytest.raises(ValueError, match="num_classes=1; it must be from 2"):
        OneClass()
