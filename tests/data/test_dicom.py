import shutil

import numpy as np
import pytest
import torch
from dicom_files import write_series, write_slice

from monai_flowssn.data.geometry import element_size
from monai_flowssn.data.reading import read_image
from monai_flowssn.transforms import LoadCased

BOX = np.zeros((6, 22, 20), np.int16)
BOX[:, 3:19, 2:18] = 1000  # 16 x 16 x 6 voxels of 0.7 x 0.7 x 2 mm
VOLUME = 16 * 16 * 6 * 0.7 * 0.7 * 2


def volume_of(folder):
    image = read_image(folder)
    return float((image > 500).sum()) * element_size(image.affine, image.ndim - 1)


@pytest.mark.parametrize("step", [(0, 0, 2.0), (0, 0, -2.0)])
def test_a_regular_series_has_the_volume_of_its_object(tmp_path, step):
    write_series(tmp_path, BOX, step=step)
    assert volume_of(tmp_path) == pytest.approx(VOLUME, rel=1e-6)


def test_an_oblique_series_is_read_where_it_lies(tmp_path):
    axes = np.array([[0.8, 0, -0.6], [0, 1, 0], [0.6, 0, 0.8]])  # columns: along a row, down, along the normal
    array = np.arange(6 * 22 * 20, dtype=np.int16).reshape(6, 22, 20)
    write_series(tmp_path, array, step=2 * axes[:, 2], orientation=(*axes[:, 0], *axes[:, 1]))
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image[0].numpy(), array.transpose(2, 1, 0))
    lps = np.diag([-1, -1, 1, 1]) @ image.affine.numpy()
    np.testing.assert_allclose(lps[:3, :3], axes * [0.7, 0.7, 2.0], atol=1e-5)


def test_the_order_of_names_does_not_matter(tmp_path):
    for z, name in enumerate("cafbed"):
        write_slice(tmp_path / f"{name}.dcm", BOX[z] + np.int16(z), position=(0, 0, 2.0 * z))
    assert read_image(tmp_path)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_doubled_slice_is_named(tmp_path):
    write_series(tmp_path, BOX)
    shutil.copy(tmp_path / "002.dcm", tmp_path / "again.dcm")
    with pytest.raises(
        ValueError, match=r"(002.dcm and again.dcm|again.dcm and 002.dcm) lie at the same place.*remove"
    ):
        read_image(tmp_path)


@pytest.mark.parametrize("missing", [[1], [2, 3]])
def test_a_gap_is_named(tmp_path, missing):
    write_series(tmp_path, BOX)
    for z in missing:
        (tmp_path / f"{z:03d}.dcm").unlink()
    gap = f"{missing[0] - 1:03d}.dcm and {missing[-1] + 1:03d}.dcm are {2 * len(missing) + 2} mm apart, others 2 mm"
    with pytest.raises(ValueError, match=gap):
        read_image(tmp_path)


def test_uneven_steps_that_add_up_are_named(tmp_path):
    heights = np.cumsum([0, *[2.0] * 10, *[2.15] * 10])
    for z, height in enumerate(heights):
        write_slice(tmp_path / f"{z:03d}.dcm", BOX[0], position=(0, 0, height))
    with pytest.raises(ValueError, match="mm from its place between the first and the last"):
        read_image(tmp_path)


def test_positions_in_tenths_of_a_millimetre_are_even(tmp_path):
    for z in range(20):
        write_slice(tmp_path / f"{z:03d}.dcm", BOX[0], position=np.round((0.05, 0, 0.625 * z), 1))
    assert read_image(tmp_path).pixdim.numpy() == pytest.approx([0.7, 0.7, 0.625], rel=0.02)


def test_a_gantry_tilt_is_refused(tmp_path):
    angle = np.radians(20)
    write_series(tmp_path, BOX, orientation=(1, 0, 0, 0, np.cos(angle), np.sin(angle)))
    with pytest.raises(ValueError, match=r"slices are shifted in their plane.*a gantry tilt of 20\.0 degrees"):
        read_image(tmp_path)


def test_two_series_and_a_scout_are_refused(tmp_path):
    write_series(tmp_path / "two", BOX)
    write_series(tmp_path / "two", BOX, first=10, series="1.2.3.5")
    with pytest.raises(
        ValueError, match=r"slices of 2 series.*6 of \(20, 22\) from 000.dcm, series 1.2.3.4.*a folder of its own"
    ):
        read_image(tmp_path / "two")
    write_series(tmp_path / "scout", BOX)
    write_slice(tmp_path / "scout" / "scout.dcm", BOX[0], position=(0, 0, 0), orientation=(1, 0, 0, 0, 0, -1))
    with pytest.raises(ValueError, match=r"slices of 2 series, orientations or sizes.*remove scouts"):
        read_image(tmp_path / "scout")


def test_the_longest_series_is_read_where_that_is_asked_for_and_said(tmp_path):
    write_series(tmp_path, BOX)
    write_slice(tmp_path / "scout.dcm", BOX[0], position=(0, 0, 0), orientation=(1, 0, 0, 0, 0, -1))
    with pytest.warns(UserWarning, match=r"6 of \(20, 22\) from 000.dcm.*1 of .* from scout.dcm.*the longest, is read"):
        image = LoadCased(series="longest")({"image": str(tmp_path), "case": "c7"})["image"]
    assert torch.equal(image.as_tensor(), torch.from_numpy(BOX.transpose(2, 1, 0)[None]).float())
    write_series(tmp_path, BOX, first=10, series="1.2.3.5")
    with pytest.raises(ValueError, match="slices of 3 series.*take the longest, if one is"):
        read_image(tmp_path, series="longest")
    with pytest.raises(ValueError, match="series is 'first'; choose one of 'one', 'longest'"):
        read_image(tmp_path, series="first")


def test_a_single_file_is_a_plane_with_an_area(tmp_path):
    image = read_image(write_slice(tmp_path / "one.dcm", BOX[0], position=(0, 0, 5)))
    assert image.shape == (1, 20, 22)
    assert float((image > 500).sum()) * element_size(image.affine, 2) == pytest.approx(16 * 16 * 0.49, rel=1e-6)


def test_what_is_no_image_is_named(tmp_path):
    write_series(tmp_path / "cut", BOX)
    (tmp_path / "cut" / "003.dcm").write_bytes((tmp_path / "cut" / "003.dcm").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"003\.dcm is no DICOM image"):
        read_image(tmp_path / "cut")
    (tmp_path / "cut" / "003.dcm").unlink()
    with pytest.raises(ValueError, match="holds no DICOM file"):
        read_image(tmp_path)
    with pytest.raises(ValueError, match="is a DICOM SEG, which is not read"):
        read_image(write_slice(tmp_path / "seg" / "s.dcm", BOX[0], position=(0, 0, 0), modality="SEG"))
