import pytest
import torch
from scipy.stats import chisquare

from monai_flowssn.annotations import annotated_raters, check_masks, pick_rater, rater_weights


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
    with pytest.raises(ValueError, match=r"case 1 of the batch: none of the 2 raters annotated it"):
        pick_rater(masks)


def test_masks_that_are_missing_in_places_are_refused():
    masks = torch.zeros(3, 2, 4, 4, dtype=torch.int16)
    masks[1, 0], masks[2, 1, 0] = -1, -1
    for rule in (annotated_raters, rater_weights, pick_rater):
        with pytest.raises(ValueError, match="case 2 of the batch: the mask of rater 1 is -1 in places"):
            rule(masks)
    with pytest.raises(ValueError, match="p3: the mask of rater 1"):
        annotated_raters(masks, cases=["p1", "p2", "p3"])


def test_who_annotated_and_how_much_each_counts():
    masks = one_pixel_masks([0, -1, 3], 2)
    assert annotated_raters(masks).tolist() == [[True, False, True]] * 2
    assert rater_weights(masks).tolist() == [[0.5, 0, 0.5]] * 2
    assert not annotated_raters(torch.full((1, 2, 3), -1)).any()
    assert annotated_raters(torch.zeros(1, 2, 3, dtype=torch.uint8)).all()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.zeros(2, 4, 4), r"masks have shape \(2, 4, 4\), the image \(2, 1, 4, 4\).*masks\[:, None\]"),
        (torch.zeros(1, 3, 4, 4), "the same B"),  # it would broadcast
        (torch.zeros(2, 3, 4, 1), "the same B"),
        (torch.zeros(2, 0, 4, 4), "non-empty"),
        (torch.full((2, 3, 4, 4), 0.5), "fractions"),
        (torch.full((2, 3, 4, 4), float("nan")), "NaN"),
        (torch.full((2, 3, 4, 4), 2), "class id 2"),
        (torch.full((2, 3, 4, 4), 40000, dtype=torch.uint16), "class id 40000"),
        (torch.full((2, 3, 4, 4), -2), "class id -2"),
    ],
)
def test_masks_that_a_loss_would_misread_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        check_masks(masks, torch.zeros(2, 1, 4, 4), 2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_masks_of_any_type_are_class_ids(dtype):
    masks = torch.eye(4).expand(2, 3, 4, 4).to(dtype)
    checked = check_masks(masks, torch.zeros(2, 1, 4, 4), 2)
    assert torch.equal(checked.float(), masks.float())
