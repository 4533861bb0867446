import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from monai_flowssn.data.pictures import (
    open_mask,
    read_picture,
    read_picture_mask,
    resize_image,
    resize_mask,
    to_bytes,
)

Y, X = np.mgrid[:400, :400]
DISC = np.where((Y - 200) ** 2 + (X - 200) ** 2 < 80**2, 255, 0).astype(np.uint8)
LIKE = DISC.T[None]


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_a_disc_keeps_its_area_when_it_shrinks():
    area = (DISC > 0).sum() / 16
    assert abs(resize_mask(DISC.T // 255, (100, 100)).sum() - area) < 0.01 * area
    rounded_down = np.asarray(Image.fromarray(DISC).resize((100, 100), Image.Resampling.BICUBIC)) // 255
    assert rounded_down.sum() < 0.96 * area  # half a pixel of a radius of 20 is 5 % of the area


def test_half_of_a_pixel_is_enough():
    mask = np.zeros((4, 6), np.uint8)
    mask[:2, :2], mask[2:, 0], mask[2, 2], mask[:2, 4:] = 1, 1, 1, [[1, 1], [1, 0]]
    np.testing.assert_array_equal(resize_mask(mask.T, (3, 2)), [[1, 1], [0, 0], [1, 0]])


def test_pictures_come_in_the_order_x_y(tmp_path):
    colour = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(read_picture(save(colour, tmp_path / "c.png")), colour.transpose(2, 1, 0))
    np.testing.assert_array_equal(resize_image(colour.transpose(2, 1, 0), (4, 2)), colour.transpose(2, 1, 0))


@pytest.mark.parametrize("top", [255, 1])
def test_both_codes_of_a_mask_are_read(tmp_path, top):
    path = save((DISC > 0).astype(np.uint8) * np.uint8(top), tmp_path / "m.png")
    np.testing.assert_array_equal(open_mask(path, like=LIKE), DISC.T // 255)


def test_palettes_and_bits_are_read(tmp_path):
    for name, picture in {"bits.png": Image.fromarray(DISC).convert("1"), "palette.gif": Image.fromarray(DISC)}.items():
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(open_mask(tmp_path / name, like=LIKE), DISC.T // 255)


@pytest.mark.parametrize("quality", [30, 90])
def test_soft_edges_of_a_jpeg_are_cut_at_the_middle(tmp_path, quality):
    mask = open_mask(save(DISC, tmp_path / "m.jpg", quality=quality), like=LIKE)
    assert (mask != DISC.T // 255).mean() < 0.003
    assert np.unique(mask).tolist() == [0, 1]


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 1, 2), (0, 100, 100)])
def test_a_third_value_is_refused(tmp_path, values):
    ring = (Y - 200) ** 2 + (X - 200) ** 2 < 120**2
    array = np.where(DISC > 0, values[2], np.where(ring, values[1], values[0])).astype(np.uint8)
    with pytest.raises(ValueError, match=rf"m\.png has areas that are neither.*{values[1]}"):
        open_mask(save(array, tmp_path / "m.png"), like=LIKE)


def test_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"m\.png is \(400, 399\), its image \(400, 400\) pixels"):
        open_mask(save(DISC[1:], tmp_path / "m.png"), like=LIKE)


@pytest.mark.parametrize("keep", [0, 20, -60])
def test_a_damaged_picture_is_named(tmp_path, keep):
    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.png does not decode"):
        read_picture(path)


RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4)  # (y, x)


def test_sixteen_bits_keep_their_values_and_promise_bytes_where_asked(tmp_path):
    deep = RAMP.astype(np.uint16) * 5000
    for name in ("d.png", "d.tif"):
        found = read_picture(save(deep, tmp_path / name))
        np.testing.assert_array_equal(found[0], deep.T)
        np.testing.assert_allclose(to_bytes(found, name)[0], deep.T / 257, rtol=1e-6)
        np.testing.assert_array_equal(read_picture_mask(tmp_path / name), deep.T)
    np.testing.assert_array_equal(read_picture(tmp_path / "d.png", channels=3), np.stack([deep.T] * 3))
    with pytest.raises(ValueError, match="is a picture of float32, whose range nothing tells"):
        to_bytes(read_picture(save(deep.astype(np.float32), tmp_path / "f.tif")), "f.tif")


def test_colours_of_sixteen_bits_are_refused(tmp_path):
    """Pillow reads the upper halves alone. Written by hand, because it does not write them either."""
    rows = b"".join(b"\0" + np.full((2, 3), 0x1234, ">u2").tobytes() for _ in range(2))
    parts = {b"IHDR": struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(ValueError, match=r"c\.png has channels of 16 bits"):
        read_picture(tmp_path / "c.png")


def palette(indices, colours, path):
    picture = Image.fromarray(indices, mode=None).convert("L")
    picture.putpalette([level for colour in colours for level in colour])
    picture.save(path)
    return path


def test_a_palette_of_colours_is_read_as_colours_or_as_class_ids(tmp_path):
    colours = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
    indices = RAMP % 3
    path = palette(indices, colours, tmp_path / "p.png")
    np.testing.assert_array_equal(read_picture(path), np.array(colours)[indices].transpose(2, 1, 0))
    np.testing.assert_array_equal(read_picture_mask(path), indices.T)


def test_a_palette_of_greys_is_read_as_its_greys(tmp_path):
    path = palette(RAMP % 2, [(255, 255, 255), (0, 0, 0)], tmp_path / "p.png")  # white first
    np.testing.assert_array_equal(read_picture(path)[0], 255 * (1 - RAMP.T % 2))
    np.testing.assert_array_equal(read_picture_mask(path), 255 * (1 - RAMP.T % 2))


@pytest.mark.parametrize(
    ("orientation", "upright"), [(1, np.array), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))]
)
def test_the_exif_orientation_is_applied(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.zeros((16, 32), np.uint8)
    stored[:8, :16] = 255
    Image.fromarray(stored).save(tmp_path / "o.jpg", exif=exif, quality=100)
    np.testing.assert_allclose(read_picture(tmp_path / "o.jpg")[0], upright(stored).T, atol=3)
    assert open_mask(tmp_path / "o.jpg", like=upright(stored).T[None]).sum() == 128


def test_black_and_white_is_255_in_an_image_and_1_in_a_mask(tmp_path):
    path = tmp_path / "b.png"
    Image.fromarray(RAMP % 2 * np.uint8(255)).convert("1").save(path)
    np.testing.assert_array_equal(read_picture(path)[0], 255 * (RAMP.T % 2))
    np.testing.assert_array_equal(read_picture_mask(path), RAMP.T % 2)


def test_transparency_is_left_out_of_an_image_and_hides_no_mask(tmp_path):
    drawn = np.stack([0 * RAMP, 255 * (RAMP % 2)], axis=-1).astype(np.uint8)  # black, where it is not transparent
    path = save(drawn, tmp_path / "t.png")
    np.testing.assert_array_equal(read_picture(path), 0 * RAMP.T[None])
    with pytest.raises(ValueError, match="transparency that differs"):
        read_picture_mask(path)


def test_grey_jpegs_whose_colours_differ_a_little_are_masks_and_pngs_not(tmp_path):
    tinted = np.stack([DISC, np.where(DISC > 0, 250, 4), DISC], axis=-1).astype(np.uint8)
    np.testing.assert_array_equal(open_mask(save(tinted, tmp_path / "m.jpg", quality=100), like=LIKE), DISC.T // 255)
    with pytest.raises(ValueError, match=r"m\.png is coloured"):
        open_mask(save(tinted, tmp_path / "m.png"), like=LIKE)


def test_several_pictures_in_a_file_are_refused(tmp_path):
    for name in ("s.tif", "s.gif"):
        Image.fromarray(RAMP).save(tmp_path / name, save_all=True, append_images=[Image.fromarray(RAMP + np.uint8(1))])
        with pytest.raises(ValueError, match=r"holds 2 pictures; save one a file"):
            read_picture(tmp_path / name)
