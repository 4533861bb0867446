import pytest
import torch
from monai.data import MetaTensor

from monai_flowssn.transforms import CropOnRatersd


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
        ((20, 20), [(4, 4), (9, 13)], (5, 7)),  # the box is 4..9 x 4..13, its centre (7, 9)
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


def test_a_share_of_random_windows_is_on_annotated_pixels():
    crop = CropOnRatersd(KEYS, spatial_size=[4, 4], random=0.75)
    crop.set_random_state(0)
    item = case((100, 100), (70, 20))
    hits = sum(int(crop(item)["label"].sum() > 0) for _ in range(400))
    assert 270 < hits < 330  # 300 expected, standard deviation 8.7
    alone = CropOnRatersd(KEYS, spatial_size=[4, 4], random=0.0)
    alone.set_random_state(0)
    corners = torch.stack([alone(item)["image"][:, 0, 0] for _ in range(400)])
    assert corners.amin() < 10
    assert corners.amax() > 86


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match="pass 0 to 1"):
        CropOnRatersd(KEYS, spatial_size=[4, 4], random=1.5)
