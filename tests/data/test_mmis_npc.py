from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose

from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.mmis_npc import MODALITIES, RATERS, mmis
from monai_flowssn.data.splits import SPLITS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHAPE = (5, 12, 10)  # (z, y, x)
SPACING = (3.0, 0.7, 0.6)


def patient(seed):
    """Arrays (z, y, x) of one patient: four raters mark planes 1 to 3, each a wider square."""
    generator = np.random.default_rng(seed)
    arrays = {name: generator.normal(100 * (i + 1), 20, SHAPE).astype(np.float32) for i, name in enumerate(MODALITIES)}
    for i, name in enumerate(RATERS):
        mask = np.zeros(SHAPE, np.uint8)
        mask[1 : 3 + (i == 3), 3 : 6 + i, 2 : 4 + i] = 1
        arrays[name] = mask
    return arrays


def write_hdf5(path, arrays, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in {**arrays, **more}.items():
            file[name] = array


def write_slices(folder, name, arrays):
    for z in range(SHAPE[0]):
        write_hdf5(folder / f"{name}_slice_{z}.h5", {key: array[z] for key, array in arrays.items()})


def write_nifti(folder, arrays):
    folder.mkdir(parents=True)
    affine = np.array([[-0.6, 0, 0, 9], [0, 0.7, 0, 8], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    for name, array in arrays.items():
        nibabel.save(nibabel.Nifti1Image(array.T, affine), folder / f"{name}.nii.gz")


@pytest.fixture
def root(tmp_path):
    """The layout of the challenge: six patients for training, two for validation, two for testing."""
    for seed, path in enumerate(
        [f"training/Sample_{i}.h5" for i in range(6)]
        + [f"{folder}/Sample_{i}.h5" for folder in ("validation", "testing") for i in range(2)]
    ):
        write_hdf5(tmp_path / path, patient(seed), voxel_spacing=np.array(SPACING))
    return tmp_path


def scaled(array):
    return (array - array.min()) / (array.max() - array.min()) * 255


def test_slices_that_somebody_marked_are_read_in_monai_order(root):
    items = mmis(root, "val")
    assert [item["case"] for item in items] == [
        f"validation-Sample_{i}_slice-00{z}" for i in range(2) for z in (1, 2, 3)
    ]
    arrays = patient(6)
    for z, item in zip((1, 2, 3), items):
        for name, channel in zip(MODALITIES, item["image"]):
            np.testing.assert_allclose(channel, scaled(arrays[name])[z].T, atol=1e-3)
        for name, mask in zip(RATERS, item["label"]):
            np.testing.assert_array_equal(mask, arrays[name][z].T)
        np.testing.assert_allclose(
            item["image"].affine, [[0.6, 0, 0, 0], [0, 0.7, 0, 0], [0, 0, 3, 3 * z], [0, 0, 0, 1]]
        )
        assert item["patient"] == "validation-Sample_0"
    assert str(items[0]["image"].dtype) == "torch.float32"
    assert len(mmis(root, "val", empty_slices=True)) == 10


def test_volumes(root):
    items = mmis(root, "test", volumes=True)
    assert [item["case"] for item in items] == ["testing-Sample_0", "testing-Sample_1"]
    assert items[0]["image"].shape == (3, 10, 12, 5)
    assert items[0]["label"].shape == (4, 10, 12, 5)
    np.testing.assert_array_equal(items[1]["label"][2], patient(9)["label_a3"].T)
    np.testing.assert_allclose(items[0]["image"].pixdim, SPACING[::-1])
    np.testing.assert_allclose(items[0]["image"].amax((1, 2, 3)), [255] * 3)


def test_slices_of_one_file_each_give_the_same_as_volumes(root):
    expected = mmis(root, "train")
    for path in sorted((root / "training").iterdir()):
        with h5py.File(path) as file:
            write_slices(root / "training_2d", path.stem, {name: file[name][()] for name in (*MODALITIES, *RATERS)})
        path.unlink()
    found = mmis(root, "train")
    assert len(found) == 18
    for one, other in zip(found, expected, strict=True):
        assert one["case"] == other["case"]
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])


def test_eleven_slices_stay_in_their_order(tmp_path):
    for z in range(12):
        arrays = {name: np.full((4, 3), float(z)) for name in MODALITIES} | {
            name: np.ones((4, 3), int) for name in RATERS
        }
        write_hdf5(tmp_path / f"training_2d/Sample_3_slice_{z}.h5", arrays)
    item = mmis(tmp_path, "train", volumes=True)[0]
    np.testing.assert_allclose(item["image"][0, 0, 0], np.arange(12) * 255 / 11, rtol=1e-6)


def test_nifti_keeps_its_geometry(tmp_path):
    for name in ("a", "b"):
        write_nifti(tmp_path / "testing" / name, patient(0))
    volume, part = mmis(tmp_path, "test", volumes=True)[1], mmis(tmp_path, "test")[1]
    assert volume["case"] == "testing-b"
    np.testing.assert_array_equal(volume["label"][1], patient(0)["label_a2"].T)
    assert volume["image"].affine[:3, 3].tolist() == [9, 8, 7]
    assert part["case"] == "testing-a_slice-002"
    np.testing.assert_array_equal(part["label"][1], patient(0)["label_a2"][2].T)
    assert part["image"].affine[:3, 3].tolist() == [9, 8, 13]


def test_without_testing_the_validation_part_tests(root):
    expected = {item["patient"] for item in mmis(root, "val")}
    for path in (root / "testing").iterdir():
        path.unlink()
    found = {split: {item["patient"] for item in mmis(root, split)} for split in SPLITS}
    assert found["test"] == expected
    assert len(found["train"]) == 5
    assert len(found["val"]) == 1
    assert not found["train"] & found["val"]


def test_folds_pool_all_patients_and_keep_each_together(root):
    tests = [{item["patient"] for item in mmis(root, "test", folds=5, fold=fold)} for fold in range(5)]
    assert [len(patients) for patients in tests] == [2] * 5
    assert len(set().union(*tests)) == 10
    assert {item["patient"] for item in mmis(root, "val", folds=5, fold=4)} == tests[0]
    assert {item["patient"] for item in mmis(root, "train", folds=5)} == set().union(*tests[2:])


def test_limit_is_evenly_spaced(root):
    whole, part = mmis(root, "train"), mmis(root, "train", limit=4)
    assert [item["case"] for item in part] == [whole[i]["case"] for i in (0, 6, 11, 17)]
    np.testing.assert_array_equal(part[2]["image"], whole[11]["image"])


def test_a_constant_contrast_is_dark(root):
    write_hdf5(root / "training/Sample_0.h5", patient(0) | {"t2": np.full(SHAPE, 7.0)})
    assert mmis(root, "train", volumes=True)[0]["image"][2].unique().tolist() == [0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_a2": patient(0)["label_a2"] * 2}, r"masks of 'training-Sample_2' hold \[2\]; expected 0"),
        ({"label_a2": patient(0)["label_a2"] * 0.5}, r"hold \[0.5\]"),
        ({"t1c": patient(0)["t1c"][:, 1:]}, r"sizes differ.*'t1c': \(10, 11, 5\)"),
        ({"label_a4": patient(0)["label_a4"][1:]}, r"sizes differ.*'label_a4': \(10, 12, 4\)"),
        ({"t2": patient(0)["t2"] * np.nan}, "NaN"),
    ],
)
def test_wrong_content_names_file_and_patient(root, changes, message):
    write_hdf5(root / "training/Sample_2.h5", patient(0) | changes)
    with pytest.raises(ValueError, match=rf"training/Sample_2\.h5: .*{message}"):
        mmis(root, "train")


def test_masks_of_another_grid_than_the_images_are_refused(root):
    cut = {name: patient(0)[name][:, :, 1:] for name in RATERS}
    write_hdf5(root / "training/Sample_2.h5", patient(0) | cut)
    with pytest.raises(ValueError, match=r"have size \(10, 12, 5\), masks \(9, 12, 5\)"):
        mmis(root, "train", volumes=True)


def test_missing_and_damaged_files_are_named(root):
    path = root / "training/Sample_4.h5"
    write_hdf5(path, {name: array for name, array in patient(0).items() if name != "label_a3"})
    with pytest.raises(ValueError, match=r"Sample_4\.h5 has .*but no 'label_a3'"):
        mmis(root, "train")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"Sample_4\.h5 is not a whole HDF5 file"):
        mmis(root, "train")


def test_missing_and_damaged_nifti_files_are_named(tmp_path):
    write_nifti(tmp_path / "training/a", patient(0))
    bad = tmp_path / "training/a/t1c.nii.gz"
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(ValueError, match=r"a/t1c\.nii\.gz does not load"):
        mmis(tmp_path, "train")
    bad.unlink()
    with pytest.raises(ValueError, match=r"a/t1c\.nii\.gz is missing"):
        mmis(tmp_path, "train")


def test_slices_of_two_sizes_are_refused(tmp_path):
    write_slices(tmp_path / "training_2d", "Sample_0", patient(0))
    write_hdf5(tmp_path / "training_2d/Sample_0_slice_5.h5", {name: array[0, 1:] for name, array in patient(0).items()})
    with pytest.raises(ValueError, match=r"slices of 'training-Sample_0' have the sizes \[\(10, 11\), \(10, 12\)\]"):
        mmis(tmp_path, "train")


def test_wrong_arguments_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="no patients in"):
        mmis(tmp_path, "train")
    with pytest.raises(ValueError, match="split='validation'"):
        mmis(tmp_path, "validation")
    write_hdf5(tmp_path / "testing/Sample_0.h5", patient(0))
    with pytest.raises(ValueError, match="no case for the split 'train'"):
        mmis(tmp_path, "train")


@pytest.mark.parametrize("volumes", [False, True])
def test_the_config_makes_cases_for_a_network(root, volumes):
    size = [16, 16, 4] if volumes else [16, 16]
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "common.yaml"), str(CONFIGS / "data" / "mmis.yaml")])
    options = {"dataset_dir": str(root), "spatial_size": size, "data::folds": 5, "data::fold": 2}
    parser.update({**options, "data::cases::volumes": volumes})
    data = parser.get_parsed_content("data")
    items = data.items("train")
    assert len(items) == 6 * (1 if volumes else 3)
    item = Compose(data.training(parser.get_parsed_content("spatial_size")))(items[0])
    assert item["image"].shape == (3, *size)
    assert item["label"].shape == (4, *size)
    assert set(item["label"].unique().tolist()) == {0, 1}


@pytest.mark.parametrize("volumes", [False, True])
def test_the_contract_of_loaders(root, volumes):
    check_loader(mmis, root, volumes=volumes)


def test_volumes_of_a_patient_that_lie_apart_are_refused(tmp_path):
    for folder in ("training", "validation"):
        write_nifti(tmp_path / folder / "Sample_0", patient(0))
    for name in ("t2", "label_a3"):
        path = tmp_path / "validation" / "Sample_0" / f"{name}.nii.gz"
        whole = path.read_bytes()
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([-1, 1, 1, 1])), path)
        with pytest.raises(ValueError, match=rf"Sample_0: {name} lies elsewhere in space"):
            mmis(tmp_path, "test")
        path.write_bytes(whole)
