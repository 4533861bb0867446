import pytest
import torch
from scipy.stats import chisquare

from monai_flowssn.segmenters import StochasticSegmenter, pick_rater


def one_pixel_masks(ids, cases):
    """(B, R, 1, 1): every case has the same raters, one pixel each."""
    return torch.tensor(ids).view(1, -1, 1, 1).expand(cases, -1, 1, 1)


def test_one_rater_is_chosen_uniformly_from_those_that_exist():
    torch.manual_seed(0)
    chosen = pick_rater(one_pixel_masks([0, -1, 1, 2, -1], 3000)).flatten()
    counts = torch.bincount(chosen, minlength=3)
    assert counts.shape == (3,)
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_several_are_chosen_without_replacement_and_each_place_is_uniform():
    torch.manual_seed(0)
    chosen = pick_rater(one_pixel_masks([0, -1, 1, 2, 3], 4000), 3).flatten(1)  # (B, 3)
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    for place in range(3):
        assert chisquare(torch.bincount(chosen[:, place], minlength=4).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_every_rater_is_used_before_any_is_used_again(n):
    torch.manual_seed(0)
    masks = torch.cat(
        [one_pixel_masks([0, 1, 2], 20), one_pixel_masks([-1, 5, 6], 20), one_pixel_masks([-1, 9, -1], 1)]
    )
    for case, raters in zip(pick_rater(masks, n).flatten(1), masks.flatten(1), strict=True):
        existing = raters[raters >= 0].tolist()
        counts = [case.tolist().count(rater) for rater in existing]
        assert sum(counts) == n
        assert max(counts) - min(counts) <= 1


def test_whole_masks_are_chosen_and_keep_their_type():
    torch.manual_seed(0)
    masks = torch.randint(0, 4, (2, 3, 4, 2, 2), dtype=torch.int16)
    chosen = pick_rater(masks, 2)
    assert chosen.shape == (2, 2, 4, 2, 2)
    assert chosen.dtype == torch.int16
    for b in range(2):
        for mask in chosen[b]:
            assert any(torch.equal(mask, rater) for rater in masks[b])


def test_a_case_without_raters_is_named():
    masks = torch.zeros(3, 2, 1, 1, dtype=torch.int16)
    masks[1] = -1
    with pytest.raises(ValueError, match=r"cases \[1\] of the batch have no rater"):
        pick_rater(masks)


def test_masks_without_an_axis_of_raters_and_masks_that_are_missing_in_places_are_refused():
    with pytest.raises(ValueError, match=r"masks have shape \(3, 4, 4\); they must be \(B, R, \*S\)"):
        pick_rater(torch.zeros(3, 4, 4))
    masks = torch.zeros(3, 2, 4, 4, dtype=torch.int16)
    masks[1, 0], masks[2, 1, 0] = -1, -1
    with pytest.raises(ValueError, match="the mask of rater 1 of case 2 is -1 in places"):
        pick_rater(masks)


class Echo(StochasticSegmenter):
    """The draw is the code of its image plus its noise; remembers how many rows were decoded at once."""

    def __init__(self):
        super().__init__(num_classes=2)
        self.rows = []

    def loss(self, image, masks):
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

    with pytest.raises(ValueError, match=r"num_classes is 1; .*pass 2 or more"):
        OneClass()
