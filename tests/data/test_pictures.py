import numpy as np
import pytest
from PIL import Image

from monai_flowssn.data.pictures import open_mask, resize_image, resize_mask

Y, X = np.mgrid[:400, :400]
DISC = np.where((Y - 200) ** 2 + (X - 200) ** 2 < 80**2, 255, 0).astype(np.uint8)
LIKE = Image.new("L", (400, 400))


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_a_disc_keeps_its_area_when_it_shrinks():
    area = (DISC > 0).sum() / 16
    assert abs(resize_mask(Image.fromarray(DISC), (100, 100)).sum() - area) < 0.01 * area
    rounded_down = np.asarray(Image.fromarray(DISC).resize((100, 100), Image.Resampling.BICUBIC)) // 255
    assert rounded_down.sum() < 0.96 * area  # half a pixel of a radius of 20 is 5 % of the area


def test_half_of_a_pixel_is_enough():
    mask = np.zeros((4, 6), np.uint8)
    mask[:2, :2], mask[2:, 0], mask[2, 2], mask[:2, 4:] = 255, 255, 255, [[255, 255], [255, 0]]
    np.testing.assert_array_equal(resize_mask(Image.fromarray(mask), (3, 2)), [[1, 1], [0, 0], [1, 0]])


def test_pictures_come_in_the_order_x_y():
    colour = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(resize_image(Image.fromarray(colour), (4, 2)), colour.transpose(2, 1, 0))
    np.testing.assert_array_equal(resize_image(Image.fromarray(colour[..., 0]), (4, 2)), colour[..., 0].T[None])


@pytest.mark.parametrize("top", [255, 1])
def test_both_codes_of_a_mask_are_read(tmp_path, top):
    path = save((DISC > 0).astype(np.uint8) * np.uint8(top), tmp_path / "m.png")
    np.testing.assert_array_equal(np.asarray(open_mask(path, like=LIKE)), DISC)


def test_palettes_and_bits_are_read(tmp_path):
    for name, picture in {"bits.png": Image.fromarray(DISC).convert("1"), "palette.gif": Image.fromarray(DISC)}.items():
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(open_mask(tmp_path / name, like=LIKE)), DISC)


@pytest.mark.parametrize("quality", [30, 90])
def test_soft_edges_of_a_jpeg_are_cut_at_the_middle(tmp_path, quality):
    mask = np.asarray(open_mask(save(DISC, tmp_path / "m.jpg", quality=quality), like=LIKE))
    assert (mask != DISC).mean() < 0.003
    assert np.unique(mask).tolist() == [0, 255]


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 1, 2), (0, 100, 100)])
def test_a_third_value_is_refused(tmp_path, values):
    ring = (Y - 200) ** 2 + (X - 200) ** 2 < 120**2
    array = np.where(DISC > 0, values[2], np.where(ring, values[1], values[0])).astype(np.uint8)
    with pytest.raises(ValueError, match=rf"m\.png has areas that are neither.*{values[1]}"):
        open_mask(save(array, tmp_path / "m.png"), like=LIKE)


def test_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"m\.png is \(400, 399\), its image \(400, 400\) pixels"):
        open_mask(save(DISC[1:], tmp_path / "m.png"), like=LIKE)
