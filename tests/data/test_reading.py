import struct

import itk
import nibabel
import numpy as np
import pytest
import torch
from dicom_files import write_slice
from PIL import Image

from monai_flowssn.data.geometry import element_size, whole_affine
from monai_flowssn.data.reading import load_case, read_image, read_mask
from monai_flowssn.transforms.summary import pixel_size

MASK = np.random.default_rng(0).integers(0, 2, (7, 5, 4), dtype=np.uint8)  # (x, y, z)
TURN = np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, 7], [0, 0, 1, 9], [0, 0, 0, 1]]) @ np.diag([0.7, 0.7, 2, 1])


def nifti(path, array, affine=TURN, **header):
    image = nibabel.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return str(path)


def load(image, *masks):
    return load_case({"image": image, "label": list(masks), "case": "c7"})


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 4)])
def test_the_same_affine_of_any_kind_is_accepted(tmp_path, shape):
    mask = MASK.reshape(-1)[: np.prod(shape)].reshape(shape)
    image = nifti(tmp_path / "i.nii.gz", mask.astype(np.float32))
    case = load(image, nifti(tmp_path / "a.nii", mask), None, nifti(tmp_path / "b.nii.gz", mask.astype(np.int16)))
    assert case["label"].shape == (3, *shape)
    np.testing.assert_array_equal(case["label"][2].numpy(), mask)
    assert (case["label"][1] == -1).all()
    torch.testing.assert_close(case["label"].affine, torch.from_numpy(TURN), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 4)])
@pytest.mark.parametrize(
    "other",
    [
        np.diag([-0.7, 0.7, 2, 1]),
        np.diag([0.7, 0.7, 2, 1]),
        TURN @ np.diag([1.2, 1, 1, 1]),
        TURN + np.array([[0, 0, 0, 0.3], *np.zeros((3, 4))]),
        None,
    ],
    ids=["flipped", "unturned", "another spacing", "shifted", "absent"],
)
def test_masks_of_another_affine_are_refused(tmp_path, shape, other):
    mask = MASK.reshape(-1)[: np.prod(shape)].reshape(shape)
    image = nifti(tmp_path / "i.nii.gz", mask.astype(np.float32))
    with pytest.raises(
        ValueError, match=r"Case 'c7': mask .*m\.nii lies elsewhere in space: a corner is [\d.]+ mm away.*resample"
    ):
        load(image, nifti(tmp_path / "m.nii", mask, other))


def test_a_small_turn_is_seen_at_the_far_corner(tmp_path):
    """0.4 degrees: no entry of the affine differs by 0.01, the corner of 512 voxels by 2.5 mm."""
    angle = np.radians(0.4)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image = nifti(tmp_path / "i.nii", np.zeros((512, 4), np.float32), np.eye(4))
    with pytest.raises(ValueError, match="elsewhere in space"):
        load(image, nifti(tmp_path / "m.nii", np.zeros((512, 4), np.uint8), turned))


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii.gz"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_itk_files_of_another_direction_are_refused(tmp_path, suffix, dimensions):
    def write(name, array, direction):
        image = itk.image_from_array(array)
        image.SetSpacing([0.5] * dimensions)
        image.SetDirection(itk.matrix_from_array(direction))
        itk.imwrite(image, str(tmp_path / f"{name}.{suffix}"))
        return str(tmp_path / f"{name}.{suffix}")

    turn = np.eye(dimensions)
    turn[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    array = MASK if dimensions == 3 else MASK[..., 0]
    image = write("i", array.astype(np.float32), turn)
    case = load(image, write("same", array, turn))
    np.testing.assert_array_equal(case["label"][0].numpy(), array.T)
    assert element_size(case["image"].affine, dimensions) == pytest.approx(0.5**dimensions)
    with pytest.raises(ValueError, match="elsewhere in space"):
        load(image, write("other", array, np.eye(dimensions)))


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1, -1, 1, 1])])
def test_a_picture_takes_masks_that_were_made_from_it(tmp_path, affine):
    Image.fromarray(MASK[..., 0].T * 9).save(tmp_path / "i.png")
    case = load(str(tmp_path / "i.png"), nifti(tmp_path / "m.nii", MASK[..., 0], affine))
    np.testing.assert_array_equal(case["label"][0].numpy(), MASK[..., 0])
    with pytest.raises(ValueError, match="is turned or flipped in space"):
        load(str(tmp_path / "i.png"), nifti(tmp_path / "f.nii", MASK[..., 0], np.diag([-1, 1, 1, 1])))


def test_channels_must_lie_together(tmp_path):
    first = nifti(tmp_path / "a.nii", MASK.astype(np.float32))
    assert read_image([first, first]).shape == (2, 7, 5, 4)
    with pytest.raises(ValueError, match=r"channel .*b\.nii lies elsewhere"):
        read_image([first, nifti(tmp_path / "b.nii", MASK.astype(np.float32), np.eye(4))])


def test_masks_of_several_channels_are_refused(tmp_path):
    image = read_image(nifti(tmp_path / "i.nii", MASK.astype(np.float32)))
    one_hot = np.stack([1 - MASK, MASK], axis=-1)
    with pytest.raises(ValueError, match=r"m\.nii has 2 channels \(it looks one-hot: take the argmax\)"):
        read_mask(nifti(tmp_path / "m.nii", one_hot), like=image)
    with pytest.raises(ValueError, match="has 2 channels; save"):
        read_mask(nifti(tmp_path / "m.nii", one_hot + 1), like=image)


@pytest.mark.parametrize(("dtype", "value"), [(np.uint16, 65535), (np.int32, 2**24 + 1), (np.float64, 2.0**24 + 1)])
def test_no_value_of_a_mask_is_rounded_or_cut(tmp_path, dtype, value):
    image = read_image(nifti(tmp_path / "i.nii", MASK.astype(np.float32)))
    mask = read_mask(nifti(tmp_path / "m.nii", MASK.astype(dtype) * dtype(value)), like=image)
    assert sorted(mask.unique().tolist()) == [0, value]


def test_sizes_that_are_no_sizes_are_refused(tmp_path):
    path = tmp_path / "i.nii"
    for value in (0, np.nan):
        nifti(path, MASK, np.eye(4))
        content = bytearray(path.read_bytes())
        struct.pack_into("<f", content, 280, value)  # srow_x[0] of NIfTI-1
        path.write_bytes(content)
        with pytest.raises(ValueError, match="pixels have no size|contradicts itself"):
            read_image(path)
    image = nibabel.Nifti1Image(MASK, np.eye(4))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "k.nii")
    with pytest.raises(ValueError, match="geometry in micron; write it again in mm"):
        read_image(tmp_path / "k.nii")
    with pytest.raises(ValueError, match="save real numbers in 2-D or 3-D"):
        read_image(nifti(tmp_path / "c.nii", MASK.astype(np.complex64)))


def test_a_header_that_says_two_sizes_is_refused(tmp_path):
    """MONAI takes the pixel size and drops the affine, other readers the reverse."""
    path = tmp_path / "i.nii"
    nifti(path, MASK, np.diag([0.7, 0.7, 2, 1]))
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, 80, 1, 1, 1)  # pixdim[1:4]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"contradicts itself: pixels of \[1.0, 1.0, 1.0\] mm, and the affine \[\[0.7"):
        read_image(path)


def test_a_picture_has_pixels_and_a_plane_of_a_scan_square_millimetres(tmp_path):
    plane = np.ones((4, 6), np.uint8)  # (y, x)
    for suffix in ("png", "tif", "jpg", "bmp"):
        Image.fromarray(plane).save(
            tmp_path / f"p.{suffix}", dpi=(72, 72)
        )  # of a printer, and no size of anything scanned
        assert pixel_size(read_image(tmp_path / f"p.{suffix}")) == (1.0, "pixels")
    np.save(tmp_path / "p.npy", plane.T)
    assert pixel_size(read_image(tmp_path / "p.npy")) == (1.0, "pixels")
    image = itk.image_from_array(plane)
    image.SetSpacing([1.2, 1.2])
    for suffix in ("nrrd", "mha", "nii"):
        itk.imwrite(image, str(tmp_path / f"s.{suffix}"))
        assert pixel_size(read_image(tmp_path / f"s.{suffix}")) == (pytest.approx(1.44), "mm^2")
    write_slice(tmp_path / "s.dcm", plane.astype(np.int16), position=(0, 0, 9), spacing=(1.2, 1.2))
    assert pixel_size(read_image(tmp_path / "s.dcm")) == (pytest.approx(1.44), "mm^2")
    nifti(tmp_path / "thick.nii.gz", plane.T, np.diag([1.2, 1.2, 3, 1]))
    assert pixel_size(read_image(tmp_path / "thick.nii.gz")) == (pytest.approx(1.44), "mm^2")


def test_a_plane_has_a_third_axis_of_length_one():
    plane = whole_affine(np.array([[0.0, -0.5, 3], [0.5, 0, 4], [0, 0, 1]]))
    np.testing.assert_array_equal(plane, [[0, -0.5, 0, 3], [0.5, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert element_size(plane, 2) == 0.25
    flat = TURN.copy()
    flat[:3, 2] = 0
    np.testing.assert_allclose(whole_affine(flat)[:3, 2], [0, 0, 1])


def test_the_size_of_a_sheared_pixel_is_that_of_its_parallelogram():
    sheared = np.eye(4)
    sheared[:2, :2] = [[2, 1], [0, 3]]
    assert element_size(sheared, 2) == pytest.approx(6)
    sheared[:3, 2] = [0.5, -0.684, 1.879]
    assert element_size(sheared, 3) == pytest.approx(6 * 1.879)
