import json
import locale

import itk
import nibabel
import numpy as np
import pytest
from dicom_files import write_series
from PIL import Image

from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.json_datalist import datalist
from monai_flowssn.data.manifest import describe
from monai_flowssn.data.splits import SPLITS, fold_patients
from monai_flowssn.transforms import CheckCased, KeepRaterd, LoadCased

CTYPE = locale.setlocale(locale.LC_CTYPE)
# ITK's compiled modules warn while they are loaded, and crash Python where the warning is an error
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")

MASK = np.random.default_rng(0).integers(0, 2, (5, 4), dtype=np.uint8)  # (y, x)


def write_cases(folder, n, *, first=0, **more):
    entries = []
    for i in range(first, first + n):
        names = [f"{kind}/{i}.png" for kind in ("image", "rater1", "rater2")]
        for name, array in zip(names, (40 * MASK + i, MASK, 1 - MASK)):
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(folder / name)
        entry = {"image": names[0], "label": names[1:]}
        entries.append(entry | {key: value(i) for key, value in more.items()})
    return entries


def write_json(folder, content):
    (folder / "data.json").write_text(json.dumps(content))
    return folder / "data.json"


def cases(path, split, **options):
    return [item["case"] for item in datalist(path, split, **options)]


def test_paths_are_relative_to_the_json_and_load(tmp_path, monkeypatch):
    path = write_json(tmp_path, {"training": write_cases(tmp_path, 3), "validation": write_cases(tmp_path, 1, first=3)})
    monkeypatch.chdir("/")
    items = datalist(path, "train")
    assert [item["case"] for item in items] == ["image_0", "image_1", "image_2"]
    assert items[1]["patient"] == "image_1"
    item = CheckCased(num_classes=2)(LoadCased()(items[1]))
    np.testing.assert_array_equal(item["label"].numpy(), np.stack([MASK.T, 1 - MASK.T]))
    np.testing.assert_array_equal(item["image"][0].numpy(), 40 * MASK.T + 1)


def test_named_lists_are_kept(tmp_path):
    entries = write_cases(tmp_path, 4)
    path = write_json(tmp_path, {"training": entries[:2], "validation": entries[2:3], "test": entries[3:]})
    assert [cases(path, split) for split in SPLITS] == [["image_0", "image_1"], ["image_2"], ["image_3"]]


def test_one_list_is_split_by_patient(tmp_path):
    path = write_json(tmp_path, write_cases(tmp_path, 20, patient=lambda i: i // 2))
    splits = [{item["patient"] for item in datalist(path, split)} for split in SPLITS]
    assert [len(patients) for patients in splits] == [7, 1, 2] or sum(map(len, splits)) == 10
    assert len(set().union(*splits)) == sum(map(len, splits)) == 10
    assert sum(len(cases(path, split)) for split in SPLITS) == 20
    assert cases(path, "train") != cases(path, "train", seed=1)


def test_validation_comes_from_the_training_patients(tmp_path):
    entries = write_cases(tmp_path, 12)
    path = write_json(tmp_path, {"training": entries[:10], "test": entries[10:]})
    train, val = cases(path, "train"), cases(path, "val")
    assert sorted(train + val) == [f"image_{i}" for i in range(10)]
    assert len(val) == 2
    assert cases(path, "test") == ["image_10", "image_11"]


def test_folds(tmp_path):
    path = write_json(tmp_path, write_cases(tmp_path, 6, fold=lambda i: i % 3))
    assert cases(path, "val", fold=1) == ["image_1", "image_4"]
    assert cases(path, "train", fold=1) == ["image_0", "image_2", "image_3", "image_5"]
    with pytest.raises(ValueError, match="names no test cases"):
        datalist(path, "test")
    with pytest.raises(ValueError, match="no case for the split 'val'"):
        datalist(path, "val", fold=7)


def patients(path, **options):
    return {split: {item["patient"] for item in datalist(path, split, **options)} for split in SPLITS}


def test_cross_validation_deals_the_labelled_entries_of_all_lists(tmp_path):
    entries = write_cases(tmp_path, 14, patient=lambda i: i // 2)
    del entries[13]["label"]
    path = write_json(tmp_path, {"training": entries[:6], "validation": entries[6:8], "test": entries[8:]})
    parts = [patients(path, folds=3, fold=fold, seed=1) for fold in range(3)]
    folds = [set(fold) for fold in fold_patients(range(7), 3, seed=1)]
    assert [part["test"] for part in parts] == folds
    assert [part["val"] for part in parts] == [*folds[1:], folds[0]]
    assert [part["train"] for part in parts] == [folds[2], *folds[:2]]
    assert sum(len(cases(path, split, folds=3)) for split in SPLITS) == 13


def test_cross_validation_keeps_the_folds_of_the_entries(tmp_path):
    entries = write_cases(tmp_path, 9, fold=lambda i: i % 4)
    del entries[8]["fold"]
    path = write_json(tmp_path, {"training": entries, "test": write_cases(tmp_path, 1, first=9)})
    assert cases(path, "test", folds=4, fold=3) == ["image_3", "image_7"]
    assert cases(path, "val", folds=4, fold=3) == ["image_0", "image_4"]
    assert cases(path, "train", folds=4, fold=3) == ["image_1", "image_2", "image_5", "image_6", "image_8"]
    assert cases(path, "val", fold=3) == ["image_3", "image_7"]  # without folds: as before, the fold validates


def test_folds_that_do_not_fit_the_entries_are_refused(tmp_path):
    path = write_json(tmp_path, write_cases(tmp_path, 6, fold=lambda i: i % 3))
    with pytest.raises(
        ValueError, match=r"entries have the folds \[0, 1, 2\], but folds=5 needs exactly \[0, 1, 2, 3, 4\]"
    ):
        datalist(path, "train", folds=5)
    path = write_json(tmp_path, write_cases(tmp_path, 6, fold=lambda i: i % 3, patient=lambda i: i // 2))
    with pytest.raises(ValueError, match="a patient is in two folds"):
        datalist(path, "train", folds=3)
    with pytest.raises(ValueError, match="fold=3"):
        datalist(path, "train", folds=3, fold=3)


def test_a_missing_rater_leaves_the_others_in_their_places(tmp_path):
    entries = write_cases(tmp_path, 2)
    entries[0]["label"][0] = None
    path = write_json(tmp_path, {"training": entries, "validation": []})
    first, second = (CheckCased(num_classes=2)(LoadCased()(item)) for item in datalist(path, "train"))
    assert (first["label"][0] == -1).all()
    np.testing.assert_array_equal(first["label"][1].numpy(), 1 - MASK.T)
    assert second["label"].shape == (2, 4, 5)
    assert describe(datalist(path, "train"))["masks"] == 3
    with pytest.raises(ValueError, match="'image_0' has no mask of rater 0"):
        KeepRaterd("label", rater=0)(first)
    np.testing.assert_array_equal(KeepRaterd("label", rater=1)(first)["label"][0].numpy(), 1 - MASK.T)


def test_a_fold_without_folds_is_refused(tmp_path):
    path = write_json(tmp_path, {"training": write_cases(tmp_path, 4)})
    with pytest.raises(ValueError, match="give the number of folds too"):
        datalist(path, "train", fold=3)


def test_inference_cases_need_no_label(tmp_path):
    entries = write_cases(tmp_path, 2)
    del entries[0]["label"], entries[1]["label"]
    path = write_json(tmp_path, {"training": entries[:1], "validation": [], "test": entries[1:]})
    assert "label" not in datalist(path, "test")[0]
    entries[1]["label"] = [None, None]
    path = write_json(tmp_path, {"training": entries[:1], "validation": [], "test": entries[1:]})
    assert "label" not in datalist(path, "test")[0]
    with pytest.raises(ValueError, match="no rater's mask"):
        datalist(path, "train")


def volume(tmp_path, name, array):
    """Write (z, y, x) with a spacing of 1, 2, 3 mm through ITK."""
    image = itk.image_from_array(array)
    image.SetSpacing([1.0, 2.0, 3.0])
    itk.imwrite(image, str(tmp_path / name))
    return name


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_volumes_keep_their_geometry(tmp_path, suffix):
    array = np.random.default_rng(1).integers(0, 2, (3, 5, 4)).astype(np.uint8)
    image = volume(tmp_path, f"ct.{suffix}", array.astype(np.int16) * 1000)
    label = [volume(tmp_path, f"r{i}.{suffix}", array) for i in range(3)]
    path = write_json(tmp_path, {"training": [{"image": image, "label": label}], "validation": []})
    item = CheckCased(num_classes=2)(LoadCased()(datalist(path, "train")[0]))
    assert item["case"] == item["label"].meta["filename_or_obj"] == "ct"
    np.testing.assert_array_equal(item["label"].numpy(), np.stack([array.transpose(2, 1, 0)] * 3))
    np.testing.assert_allclose(item["label"].pixdim.numpy(), [1, 2, 3], rtol=1e-5)
    np.testing.assert_array_equal(item["label"].affine, item["image"].affine)


def test_a_dicom_series_with_nifti_masks(tmp_path):
    array = np.random.default_rng(2).integers(-1000, 1000, (3, 5, 4)).astype(np.int16)
    write_series(tmp_path / "scan.1", array)
    mask = (array > 0).transpose(2, 1, 0).astype(np.uint8)
    image = LoadCased()({"image": str(tmp_path / "scan.1"), "case": "x"})["image"]
    for name in ("r.nii.gz", "s.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(mask, image.affine.numpy()), tmp_path / name)
    entries = [{"image": "scan.1", "label": ["r.nii.gz", "s.nii.gz"]}]
    path = write_json(tmp_path, {"training": entries, "validation": []})
    item = CheckCased(num_classes=2)(LoadCased()(datalist(path, "train")[0]))
    assert locale.setlocale(locale.LC_CTYPE) == CTYPE  # ITK changes it
    assert item["case"] == "scan_1"
    np.testing.assert_array_equal(item["image"][0].numpy(), array.transpose(2, 1, 0))
    np.testing.assert_array_equal(item["label"].numpy(), np.stack([mask, mask]))
    np.testing.assert_allclose(item["image"].pixdim.numpy(), [0.7, 0.7, 2.0], rtol=1e-5)


def test_a_mask_with_a_third_axis_of_one_fits_a_flat_image(tmp_path):
    """MONAI Label's answers, and what viewers of volumes save of them."""
    mask = np.random.default_rng(3).integers(0, 2, (5, 4, 1)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask[..., 0].astype(np.float32), np.eye(4)), tmp_path / "flat.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    item = LoadCased()({"image": str(tmp_path / "flat.nii.gz"), "label": [str(tmp_path / "mask.nii.gz")], "case": "x"})
    np.testing.assert_array_equal(item["label"].numpy(), mask.transpose(2, 0, 1))


@pytest.fixture
def damaged(tmp_path):
    entries = write_cases(tmp_path, 3)
    (tmp_path / "rater2/1.png").write_bytes(b"no picture")
    return write_json(tmp_path, {"training": entries, "validation": []})


def test_a_corrupt_file_is_named_when_it_is_loaded(damaged):
    with pytest.raises(ValueError, match=r"Case 'image_1'.*rater2/1\.png does not decode"):
        [LoadCased()(item) for item in datalist(damaged, "train")]


def test_a_corrupt_file_is_skipped_by_choice(damaged):
    with pytest.warns(UserWarning, match=r"Case skipped.*rater2/1\.png") as record:
        assert cases(damaged, "train", on_error="skip") == ["image_0", "image_2"]
    assert sum("Case skipped" in str(each.message) for each in record) == 1  # MONAI warns of its own


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image": "image/0.png", "label": ["nowhere.png"]}, r"'image_0' names .*nowhere\.png, which does not exist"),
        ({"image": "nowhere.png", "label": ["rater1/0.png"]}, "which does not exist"),
        ({"image": "image/0.png", "label": [None, None]}, "no rater's mask"),
        ({"image": "image/0.png"}, "no rater's mask"),
        ({"label": ["rater1/0.png"]}, "has no 'image'"),
    ],
)
def test_bad_entries_are_named(tmp_path, entry, message):
    write_cases(tmp_path, 1)
    path = write_json(tmp_path, {"training": [entry], "validation": []})
    with pytest.raises(ValueError, match=message):
        datalist(path, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no case for the split 'train'"),
        ({}, "no datalist"),
        (["a"], "no datalist"),
        ({"training": None}, "no datalist"),
        ({"training": []}, "no case"),
    ],
)
def test_empty_lists_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        datalist(write_json(tmp_path, content), "train")


def test_wrong_arguments_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="not a readable JSON"):
        datalist(tmp_path / "nowhere.json", "train")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="not a readable JSON"):
        datalist(tmp_path / "x.json", "train")
    with pytest.raises(ValueError, match="on_error='ignore'"):
        datalist(tmp_path / "x.json", "train", on_error="ignore")
    twice = [entry | {"case": "x"} for entry in write_cases(tmp_path, 2)]
    with pytest.raises(ValueError, match="two cases are named 'x'"):
        datalist(write_json(tmp_path, {"training": twice, "validation": []}), "train")


def lists(tmp_path, **changes):
    """Three lists of two labelled cases each, with patients."""
    entries = write_cases(tmp_path, 6, patient=lambda i: f"p{i}")
    content = {"training": entries[:2], "validation": entries[2:4], "test": entries[4:]}
    return {**content, **changes}, entries


@pytest.mark.parametrize("split", SPLITS)
def test_a_patient_or_a_file_in_two_lists_is_refused(tmp_path, split):
    content, entries = lists(tmp_path)
    entries[4]["patient"] = "p0"
    with pytest.raises(ValueError, match="patient 'p0' is in test and training"):
        datalist(write_json(tmp_path, content), split)
    assert len(datalist(write_json(tmp_path, content), split, folds=3)) > 0  # dealt anew
    entries[4]["patient"], entries[4]["label"] = "p4", ["../" + tmp_path.name + "/" + entries[0]["label"][0]]
    for options in ({}, {"folds": 3}):
        with pytest.raises(
            ValueError, match=r"rater1/0\.png stands in case 'image_0' of training and again in case 'image_4'"
        ):
            datalist(write_json(tmp_path, content), split, **options)


def test_a_patient_without_masks_in_another_list_is_told(tmp_path):
    content, entries = lists(tmp_path)
    entries[4]["patient"] = "p0"
    del entries[4]["label"]
    with pytest.warns(UserWarning, match=r"patient 'p0' is in test \(without masks\) and training"):
        assert cases(write_json(tmp_path, content), "test") == ["image_4", "image_5"]


@pytest.mark.parametrize("rater", ["image/0.png", "rater1/0.png", "./rater1/0.png"])
def test_a_file_stands_for_one_rater_and_no_image(tmp_path, rater):
    content, entries = lists(tmp_path)
    entries[0]["label"][1] = rater
    with pytest.raises(ValueError, match="a file belongs to one case and one rater"):
        datalist(write_json(tmp_path, content), "train")


@pytest.mark.parametrize("patient", [None, "", " p0", 1.0, True, ["p0"], float("nan")])
def test_a_patient_who_is_nobody_is_refused(tmp_path, patient):
    content, entries = lists(tmp_path)
    entries[1]["patient"] = patient
    with pytest.raises(ValueError, match=r"entry 1 of training: 'patient' is .*leave the key out in all"):
        datalist(write_json(tmp_path, content), "val")


def test_patients_are_named_in_all_entries_or_in_none(tmp_path):
    content, entries = lists(tmp_path)
    del entries[3]["patient"]
    with pytest.raises(ValueError, match=r"1 of 6 entries have no 'patient', the first of image/3\.png"):
        datalist(write_json(tmp_path, content), "train")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patient", "Patient", "unknown key 'Patient' .did you mean 'patient'"),
        ("patient", "patient_id", "did you mean 'patient'"),
        ("label", "labels", "did you mean 'label'"),
        ("image", "scan", "has no 'image'"),
    ],
)
def test_misspelt_keys_are_refused_with_the_nearest(tmp_path, old, new, message):
    content, entries = lists(tmp_path)
    entries[0][new] = entries[0].pop(old)
    with pytest.raises(ValueError, match=message):
        datalist(write_json(tmp_path, content), "train")


def test_misspelt_lists_are_refused_and_other_facts_left_alone(tmp_path):
    content, _ = lists(tmp_path)
    content["validaton"] = content.pop("validation")
    with pytest.raises(ValueError, match="unknown list 'validaton' .did you mean 'validation'"):
        datalist(write_json(tmp_path, content), "train")
    content["validation"] = content.pop("validaton")
    content |= {"name": "ours", "labels": {"0": "background"}, "numTraining": 2}
    assert len(datalist(write_json(tmp_path, content), "train")) == 2
    content["holdout"] = []
    with pytest.raises(ValueError, match="unknown list 'holdout'; rename it"):
        datalist(write_json(tmp_path, content), "train")


def test_further_keys_are_told(tmp_path):
    content, entries = lists(tmp_path)
    entries[0]["scanner"] = "x"
    with pytest.warns(UserWarning, match=r"entries have \['scanner'\], which are not read"):
        datalist(write_json(tmp_path, content), "train")


@pytest.mark.parametrize("fold", ["0", 0.0, True, None])
def test_a_fold_that_is_no_integer_is_refused(tmp_path, fold):
    path = write_json(tmp_path, write_cases(tmp_path, 6, fold=lambda i: fold))
    with pytest.raises(ValueError, match=r"entry 0 of training: 'fold' is .*without quotes"):
        datalist(path, "train")


def test_a_patient_in_two_folds_is_refused_without_folds_too(tmp_path):
    path = write_json(tmp_path, write_cases(tmp_path, 6, fold=lambda i: i % 2, patient=lambda i: i // 2))
    with pytest.raises(ValueError, match="a patient is in two folds, '0'"):
        datalist(path, "val", fold=1)
    path = write_json(tmp_path, [e | {"patient": "p"} for e in write_cases(tmp_path, 2)])
    entries = json.loads(path.read_text())
    entries[0]["fold"] = 0
    with pytest.raises(ValueError, match="a patient is in two folds"):
        datalist(write_json(tmp_path, entries), "val")


def test_a_byte_order_mark_is_read_over(tmp_path):
    content, _ = lists(tmp_path)
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    assert cases(path, "train") == ["image_0", "image_1"]


def test_a_rater_who_is_null_everywhere_is_told(tmp_path):
    content, entries = lists(tmp_path)
    for entry in entries:
        entry["label"].insert(1, None)
    with pytest.warns(UserWarning, match="rater 1, counted from 0, is null in every entry"):
        assert datalist(write_json(tmp_path, content), "train")[0]["label"][1] is None


@pytest.mark.parametrize("label", [["a.png", ""], [3], {"a": 1}, [["a.png"]]])
def test_labels_that_are_no_files_are_refused(tmp_path, label):
    content, entries = lists(tmp_path)
    entries[0]["label"] = label
    with pytest.raises(ValueError, match=r"entry 0 of training: 'label' is .*null where a rater did not annotate"):
        datalist(write_json(tmp_path, content), "train")


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "data.json").write_text('{"training": [], "training": []}')
    with pytest.raises(ValueError, match="'training' stands twice"):
        datalist(tmp_path / "data.json", "train")


def test_the_contract_of_loaders(tmp_path):
    check_loader(datalist, write_json(tmp_path, write_cases(tmp_path, 12, patient=lambda i: i // 2)))
