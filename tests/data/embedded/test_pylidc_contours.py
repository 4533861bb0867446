import importlib
import json
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest

from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.embedded.contours import RATINGS, Contour, Nodule
from monai_flowssn.data.splits import SPLITS, fold_patients, split_patients

module = importlib.import_module("monai_flowssn.data.embedded.pylidc_contours")
SQUARE = np.array([[100, 200], [108, 200], [108, 208], [100, 208]])  # encloses 7 x 7 pixels
NEEDLE = np.array([[104, 204], [105, 204]])  # encloses none


def nodule(patient):
    """A nodule of two planes that three radiologists drew, a third that one drew, a fourth where no mark has pixels."""
    full = [Contour(z, SQUARE, True) for z in (0.0, 2.0)]
    raters = [full, full, [*full, Contour(4.0, SQUARE, True)], [Contour(6.0, NEEDLE, True), *full[:1]]]
    return Nodule(f"LIDC-IDRI-{patient:04d}/nodule-0", patient, 0.7, 2.0, dict.fromkeys(RATINGS, 4.0), raters)


NODULES = [nodule(patient) for patient in range(1, 9)]


@pytest.fixture(autouse=True)
def _tiny_database(monkeypatch):
    monkeypatch.setattr(module, "find_database", lambda: None)
    monkeypatch.setattr(module, "read_nodules", lambda database: NODULES)


def content(path):
    with h5py.File(path, "r") as file:
        return {f"{name}/{key}": file[name][key][:] for name in SPLITS for key in file[name]}


def test_the_file_has_the_layout_of_phiseg(tmp_path):
    module.build_lidc_contours(tmp_path / "a.hdf5", size=32)
    with h5py.File(tmp_path / "a.hdf5", "r") as file:
        group = file["train"]
        assert "Masks are real" in file.attrs["about"]
        assert "CT is simulated" in file.attrs["about"]
        assert group["images"].shape == (18, 32, 32)  # 6 patients, 3 slices with a marked pixel
        assert group["labels"].shape == (18, 32, 32, 4)
        assert group["images"].dtype == group["labels"].dtype == np.uint8
        assert group["images"][:].min((1, 2)).tolist() == [0] * 18
        assert group["images"][:].max((1, 2)).tolist() == [255] * 18
        assert group["labels"][:].sum((1, 2)).max() == 49
        assert np.sort(group["labels"][:3].any((1, 2)).sum(1)).tolist() == [1, 3, 4]
        assert group["spacing"][:].tolist() == [0.7] * 18
        assert group["slice_ids"].asstr()[:3].tolist() == [
            f"simulated-CT_LIDC-IDRI-000{group['uids'][0]}/nodule-0/slice-{k}" for k in range(3)
        ]


def test_patients_are_split_as_split_patients_says(tmp_path):
    module.build_lidc_contours(tmp_path / "a.hdf5", size=32)
    expected = split_patients(range(1, 9))
    for name in SPLITS:
        assert sorted(set(map(str, content(tmp_path / "a.hdf5")[f"{name}/uids"]))) == expected[name]


def test_another_process_writes_the_same(tmp_path):
    module.build_lidc_contours(tmp_path / "here.hdf5", size=32)
    (tmp_path / "nodules.pickle").write_bytes(pickle.dumps(NODULES))
    code = (
        "import importlib, pickle, sys\n"
        "module = importlib.import_module('monai_flowssn.data.embedded.pylidc_contours')\n"
        "module.find_database = lambda: None\n"
        "module.read_nodules = lambda database: pickle.load(open('nodules.pickle', 'rb'))\n"
        "module.build_lidc_contours('there.hdf5', size=32)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)
    here, there = content(tmp_path / "here.hdf5"), content(tmp_path / "there.hdf5")
    assert here.keys() == there.keys()
    for key, values in here.items():
        np.testing.assert_array_equal(values, there[key], err_msg=key)


def test_first_call_builds_and_the_next_ones_read(tmp_path, monkeypatch):
    items = module.lidc_contours(tmp_path / "new", "val", size=32)
    assert len(items) == 3
    assert items[0]["image"].shape == (1, 32, 32)
    assert items[0]["label"].shape == (4, 32, 32)
    assert items[0]["image"].affine[0, 0] == 0.7
    manifest = json.loads((tmp_path / "new" / "lidc_contours_size32_seed0.manifest.json").read_text())
    assert "CT is simulated" in manifest["about"]
    assert {name: group["patients"] for name, group in manifest["groups"].items()} == {"train": 6, "val": 1, "test": 1}
    assert len(list((tmp_path / "new").iterdir())) == 2  # no pieces are left
    monkeypatch.setattr(module, "build_lidc_contours", None)
    assert len(module.lidc_contours(tmp_path / "new", "train", size=32, limit=5)) == 5


def test_the_seed_moves_patients_and_raters_but_not_the_simulated_ct(tmp_path):
    for seed in (0, 1):
        module.build_lidc_contours(tmp_path / f"{seed}.hdf5", size=32, seed=seed)
    zero, one = ({k: v for k, v in content(tmp_path / f"{seed}.hdf5").items()} for seed in (0, 1))
    assert zero["val/uids"].tolist() != one["val/uids"].tolist()
    assert not np.array_equal(zero["train/labels"], one["train/labels"])
    shared = sorted(set(zero["train/slice_ids"]) & set(one["train/slice_ids"]))
    rows = [[list(part["train/slice_ids"]).index(name) for name in shared] for part in (zero, one)]
    np.testing.assert_array_equal(zero["train/images"][rows[0]], one["train/images"][rows[1]])


@pytest.mark.parametrize("damage", [lambda file: file[:500], lambda file: b""])
def test_a_cut_file_is_built_anew(tmp_path, damage):
    path = tmp_path / "lidc_contours_size32_seed0.hdf5"
    module.build_lidc_contours(path, size=32)
    path.write_bytes(damage(path.read_bytes()))
    assert len(module.lidc_contours(tmp_path, "test", size=32)) == 3


def test_an_older_recipe_is_built_anew(tmp_path):
    path = tmp_path / "lidc_contours_size32_seed0.hdf5"
    module.build_lidc_contours(path, size=32)
    with h5py.File(path, "a") as file:
        file.attrs["recipe"] = 0
    path.with_suffix(".manifest.json").write_text("of the older recipe")
    module.lidc_contours(tmp_path, "test", size=32)
    assert "groups" in json.loads(path.with_suffix(".manifest.json").read_text())
    with h5py.File(path, "r") as file:
        assert file.attrs["recipe"] == module.RECIPE


def test_a_failed_build_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "simulate_ct", stop)
    with pytest.raises(KeyboardInterrupt):
        module.build_lidc_contours(tmp_path / "a.hdf5", size=32)
    assert list(tmp_path.iterdir()) == []


def test_tiny_patches_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 16"):
        module.build_lidc_contours(tmp_path / "a.hdf5", size=8)


def test_folds_deal_all_patients(tmp_path):
    parts = [{i["patient"] for i in module.lidc_contours(tmp_path, "test", size=32, folds=4, fold=f)} for f in range(4)]
    assert parts == [set(fold) for fold in fold_patients(range(1, 9), 4)]
    assert {i["patient"] for i in module.lidc_contours(tmp_path, "val", size=32, folds=4, fold=3)} == parts[0]
    with pytest.raises(ValueError, match="folds >= 3"):
        module.lidc_contours(tmp_path / "new", "test", folds=2)
    assert not (tmp_path / "new").exists()


def test_the_contract_of_loaders(tmp_path):
    check_loader(module.lidc_contours, tmp_path, size=32)
