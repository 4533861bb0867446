import pytest
import torch
from monai.data import MetaTensor

from monai_flowssn.transforms import CropOnRatersd, RandCropOnRatersd


def case(size, *pixels, raters=2):
    """An image that knows its place, and masks that are annotated at some pixels by rater 1."""
    places = torch.stack(torch.meshgrid(*[torch.arange(float(s)) for s in size], indexing="ij"))
    label = torch.zeros(raters, *size, dtype=torch.int8)
    for pixel in pixels:
        label[(1, *pixel)] = 1
    return {"image": MetaTensor(places), "label": MetaTensor(label)}


KEYS = ["image", "label"]


@pytest.mark.parametrize(
    ("size", "pixels", "corner"),
    [
        ((20, 20), [(10, 6)], (8, 4)),
        ((20, 20), [(4, 4), (7, 6)], (4, 3)),  # the box is 4..7 x 4..6, its centre (6, 5)
        ((20, 20), [(0, 19)], (0, 16)),  # kept inside
        ((20, 20), [], (8, 8)),
        ((20, 20, 12), [(10, 6, 3)], (8, 4, 1)),
    ],
)
def test_the_window_is_centred_on_the_box_of_all_annotations(size, pixels, corner):
    out = CropOnRatersd(KEYS, spatial_size=[4] * len(size))(case(size, *pixels))
    assert out["image"].shape[1:] == out["label"].shape[1:] == (4,) * len(size)
    assert tuple(out["image"].flatten(1)[:, 0].int().tolist()) == corner
    assert out["label"].sum() == sum(all(c <= p < c + 4 for p, c in zip(pixel, corner)) for pixel in pixels)


def test_without_a_label_it_is_the_centre_of_the_image():
    out = CropOnRatersd(KEYS, spatial_size=[4, 4])({"image": case((20, 10))["image"]})
    assert out["image"][:, 0, 0].tolist() == [8, 3]


def test_without_a_key_of_masks_it_is_the_centre_of_the_image():
    out = CropOnRatersd(KEYS, spatial_size=[4, 4], label_key=None)(case((20, 10), (0, 0)))
    assert out["image"][:, 0, 0].tolist() == [8, 3]
    assert out["label"].shape == (2, 4, 4)


def test_a_flat_window_takes_all_slices_of_a_volume():
    item, crop = case((20, 3, 5), (10, 2, 3)), CropOnRatersd(KEYS, spatial_size=[4, 4])
    out = crop(item)
    assert out["image"].shape[1:] == (4, 4, 5)
    assert out["image"][:, 0, 0, 0].tolist() == [8, 0, 0]
    assert torch.equal(crop.inverse(out)["label"].as_tensor(), item["label"].as_tensor())


def test_a_missing_rater_annotated_nothing():
    item = case((20, 20), (2, 2), raters=3)
    item["label"][2] = -1
    assert CropOnRatersd(KEYS, spatial_size=[4, 4])(item)["image"][:, 0, 0].tolist() == [0, 0]


def test_small_images_are_padded_by_their_edges():
    out = CropOnRatersd(KEYS, spatial_size=[8, 8])(case((4, 20), (2, 10)))
    assert out["image"].shape[1:] == (8, 8)
    assert out["image"][0, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert out["label"].sum() == 1


@pytest.mark.parametrize("size", [(20, 20), (3, 20)])
def test_windows_go_back_where_they_came_from(size):
    item, crop = case(size, (2, 10)), CropOnRatersd(KEYS, spatial_size=[4, 4])
    back = crop.inverse(crop(item))
    assert back["image"].shape == item["image"].shape
    inside = back["image"].as_tensor() > 0
    assert torch.equal(back["image"].as_tensor()[inside], item["image"].as_tensor()[inside])
    assert torch.equal(back["label"].as_tensor(), item["label"].as_tensor())


def test_annotations_too_far_apart_for_a_window_get_the_one_with_most_of_them():
    pixels = [(0, 0), (19, 19), (18, 19)]
    out = CropOnRatersd(KEYS, spatial_size=[4, 4])(case((20, 20), *pixels))
    assert out["label"].sum() == 2
    large = [(i, j) for i in range(4, 16) for j in range(2, 12)]
    assert CropOnRatersd(KEYS, spatial_size=[4, 4])(case((20, 20), *large))["image"][:, 0, 0].tolist() == [8, 5]
    out = CropOnRatersd(KEYS, spatial_size=[4, 4, 2])(case((20, 20, 6), (0, 0, 0), (9, 9, 4), (10, 10, 5)))
    assert out["label"].sum() == 2


def test_a_share_of_random_windows_holds_an_annotated_pixel_anywhere_in_it():
    crop = RandCropOnRatersd(KEYS, spatial_size=[4, 4], annotated=0.75)
    crop.set_random_state(0)
    item = case((100, 100), (70, 20))
    labels = torch.stack([crop(item)["label"][1] for _ in range(1600)])
    hits = labels.sum(dim=0)
    assert 1130 < hits.sum() < 1270  # 1200 expected, standard deviation 17
    assert hits.min() > 40  # 75 expected in every place of the window, standard deviation 8.5
    assert hits.max() < 110
    alone = RandCropOnRatersd(KEYS, spatial_size=[4, 4], annotated=0)
    alone.set_random_state(0)
    corners = torch.stack([alone(item)["image"][:, 0, 0] for _ in range(400)])
    assert corners.amin() < 10
    assert corners.amax() > 86


def test_random_windows_are_plain_tensors_and_small_images_padded():
    out = RandCropOnRatersd(KEYS, spatial_size=[8, 8, 2])(case((4, 20, 2), (2, 10, 0)))
    assert type(out["image"]) is type(out["label"]) is torch.Tensor
    assert out["image"].shape[1:] == (8, 8, 2)
    assert out["image"][0, :, 0, 0].tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert out["label"].dtype == torch.int8


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="pass 0 to 1"):
        RandCropOnRatersd(KEYS, spatial_size=[4, 4], annotated=1.5)
    with pytest.raises(ValueError, match="one size per axis"):
        CropOnRatersd(KEYS, spatial_size=64)
