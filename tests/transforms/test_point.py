from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Spacingd

from monai_flowssn.transforms import CropOnPointd, LocatePointd
from monai_flowssn.transforms.point import seen_window


def case(size, point, affine=None):
    """An image whose value at a voxel is its place in the file, counted in rows."""
    count = torch.arange(float(np.prod(size))).reshape(1, *size)
    return {"image": MetaTensor(count, affine=torch.eye(4) if affine is None else affine), "case": "c", "point": point}


def around(size, point, window, affine=None):
    return Compose([LocatePointd(), CropOnPointd("image", spatial_size=window)])(case(size, point, affine))


def drawn(item):
    """A map of ones in the geometry of the image, as inference makes them."""
    image = item["image"]
    return MetaTensor(torch.ones_like(image), meta=image.meta, applied_operations=image.applied_operations)


@pytest.mark.parametrize(
    ("size", "point", "window", "corner"),
    [
        ((20, 30), [10, 12], (4, 6), (8, 9)),
        ((20, 30), [0, 29], (4, 6), (0, 24)),  # moved inside
        ((9, 8, 7), [4, 3, 2], (2, 4, 2), (3, 1, 1)),
        ((9, 8, 7), (4, 3, 2), (2, 4), (3, 1, 0)),  # a 2-D window keeps the third axis
    ],
)
def test_the_window_lies_around_the_voxel_of_the_file(size, point, window, corner):
    item = around(size, point, window)
    whole = tuple(window) + size[len(window) :]
    place = tuple(slice(c, c + w) for c, w in zip(corner, whole))
    torch.testing.assert_close(item["image"].as_tensor(), case(size, point)["image"].as_tensor()[(0, *place)][None])
    assert seen_window(item["image"], item["file_affine"]) == [list(corner), [c + w - 1 for c, w in zip(corner, whole)]]


def test_a_point_keeps_its_place_when_voxels_change():
    affine = torch.diag(torch.tensor([-0.5, 2.0, 1.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([40.0, -7.0, 3.0])
    chain = [LocatePointd(), Spacingd("image", (1.0, 1.0, 1.0)), CropOnPointd("image", spatial_size=(8, 8, 8))]
    item = Compose(chain)(case((40, 20, 16), [30, 6, 9], affine))
    centre = item["image"].affine @ torch.tensor([4.0, 4.0, 4.0, 1.0], dtype=torch.float64)
    world = affine @ torch.tensor([30.0, 6.0, 9.0, 1.0], dtype=torch.float64)
    assert (centre - world).abs().max() <= 0.5
    (x0, y0, z0), (x1, y1, z1) = seen_window(item["image"], item["file_affine"])
    assert x0 <= 30 - 7
    assert x1 >= 30 + 6
    assert x1 - x0 <= 17
    assert y0 <= 6 <= y1
    assert y1 - y0 <= 5
    assert (z0, z1) == (5, 12)


def test_maps_go_back_to_where_they_were_drawn():
    chain = Compose([LocatePointd(), CropOnPointd("image", spatial_size=(4, 4))])
    item = chain(case((10, 12), [5, 7]))
    back = Invertd("map", chain, orig_keys="image", nearest_interp=True)({**item, "map": drawn(item)})["map"]
    expected = torch.zeros(1, 10, 12)
    expected[:, 3:7, 5:9] = 1
    torch.testing.assert_close(torch.as_tensor(back), expected, check_dtype=False)


@pytest.mark.parametrize("point", [None, "absent"])
def test_without_a_point_the_image_stays_whole(point):
    chain = Compose([LocatePointd(), CropOnPointd("image", spatial_size=(4, 4))])
    item = case((10, 12), point)
    if point == "absent":
        del item["point"]
    cropped = chain(item)
    assert cropped["image"].shape == (1, 10, 12)
    back = Invertd("map", chain, orig_keys="image")({**cropped, "map": drawn(cropped)})["map"]
    assert back.shape == (1, 10, 12)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ([3, 12], r"point \[3, 12\], outside of its image of \[10, 12\]; indices run from 0 to \[9, 11\]"),
        ([-1, 2], r"outside of its image"),
        ([3.5, 2], r"Case 'c' has the point \[3.5, 2\]; it is 2 whole numbers"),
        ([3, 2, 1], "it is 2 whole numbers"),
        ("3,2", "it is 2 whole numbers"),
        (["3", "2"], "it is 2 whole numbers"),
        ([True, 2], "it is 2 whole numbers"),
        ([float("nan"), 2], "it is 2 whole numbers"),
        (7, "it is 2 whole numbers"),
        ([], "it is 2 whole numbers"),
    ],
)
def test_what_is_no_point_is_refused(point, message):
    with pytest.raises(ValueError, match=message):
        LocatePointd()(case((10, 12), point))


def test_a_model_of_whole_images_takes_no_point():
    with pytest.raises(ValueError, match="this model sees whole images: leave the point out"):
        LocatePointd(allowed=False)(case((10, 12), [1, 1]))
