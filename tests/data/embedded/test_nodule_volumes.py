import importlib

import numpy as np
import pytest

from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.embedded.contours import RATINGS, Contour, Nodule

module = importlib.import_module("monai_flowssn.data.embedded.nodule_volumes")
SQUARE = np.array([[100, 200], [108, 200], [108, 208], [100, 208]])  # encloses 7 x 7 pixels


def nodule(patient, planes=(0.0, 2.5, 5.0)):
    """A nodule that all radiologists drew on the first planes, and only one of them on the last."""
    most = [Contour(z, SQUARE, True) for z in planes[:-1]]
    raters = [most, most, most, [*most, Contour(planes[-1], SQUARE, True)]]
    return Nodule(f"LIDC-IDRI-{patient:04d}/nodule-0", patient, 0.7, 2.0, dict.fromkeys(RATINGS, 4.0), raters)


@pytest.fixture(autouse=True)
def _tiny_database(monkeypatch):
    nodules = [nodule(patient) for patient in range(1, 9)] + [nodule(9, planes=(1.0,))]
    monkeypatch.setattr(module, "find_database", lambda: None)
    monkeypatch.setattr(module, "read_nodules", lambda database: nodules)


def test_a_nodule_is_a_volume_with_margins_and_its_own_voxels(tmp_path):
    items = module.lidc_contours_volumes(tmp_path, "train", size=32)
    item = items[0]
    assert item["image"].shape == (1, 32, 32, 7)  # three planes, two slices on either side
    assert item["label"].shape == (4, 32, 32, 7)
    np.testing.assert_allclose(np.diag(item["image"].affine), [0.7, 0.7, 2.5, 1])
    marked = item["label"].as_tensor().sum(dim=(1, 2))
    assert marked[:3].tolist() == [[0, 0, 49, 49, 0, 0, 0]] * 3
    assert marked[3].tolist() == [0, 0, 49, 49, 49, 0, 0]
    image = item["image"].as_tensor()
    assert -1200 < image.min() < -700  # Hounsfield units: air
    nodule = image[0, ..., 2][item["label"][0, ..., 2] > 0].mean()
    assert nodule > image[0, ..., 2].median() + 200


def test_patients_are_split_and_later_calls_read(tmp_path, monkeypatch):
    parts = [
        {item["patient"] for item in module.lidc_contours_volumes(tmp_path, name, size=32)}
        for name in ("train", "val", "test")
    ]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 8  # one plane makes no volume
    monkeypatch.setattr(module, "read_nodules", None)
    assert len(module.lidc_contours_volumes(tmp_path, "train", size=32, limit=2)) == 2
    folded = [module.lidc_contours_volumes(tmp_path, "test", size=32, folds=4, fold=fold) for fold in range(4)]
    assert sum(map(len, folded)) == 8


def test_a_size_that_holds_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 16"):
        module.lidc_contours_volumes(tmp_path, "train", size=8)


def test_the_contract_of_loaders(tmp_path):
    check_loader(module.lidc_contours_volumes, tmp_path, size=32)
