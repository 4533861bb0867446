import pickle

import h5py
import numpy as np
import pytest
from PIL import Image

from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.lidc_idri import lidc
from monai_flowssn.data.splits import SPLITS, fold_patients

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (14, 6, 5), dtype=np.uint8)  # (n, y, x)
GREY[:, 0, 0], GREY[:, 0, 1] = 0, 255
MASKS = RNG.integers(0, 2, (14, 6, 5, 4), dtype=np.uint8)
UIDS = np.arange(14) // 2


def write_hdf5(path, images=GREY, labels=MASKS, **more):
    with h5py.File(path, "w") as file:
        for shift, split in enumerate(SPLITS):
            group = file.create_group(split)
            group["images"], group["labels"], group["uids"] = images, labels, UIDS + 100 * shift
            for name, values in more.items():
                group[name] = values
    return path


def write_tree(folder, names, mask_folder="gt"):
    for i, name in enumerate(names):
        for kind, arrays in (
            ("images", {"": GREY[i]}),
            (mask_folder, {f"_l{r}": 255 * MASKS[i, ..., r] for r in range(4)}),
        ):
            for suffix, array in arrays.items():
                path = folder / kind / f"{name}{suffix}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)


def write_pickle(path, **changes):
    data = {
        f"case{i}.png": {
            "image": GREY[i] / 255.0,
            "masks": [MASKS[i, ..., r] for r in range(4)],
            "series_uid": f"1.2.{UIDS[i]}",
        }
        | changes
        for i in range(14)
    }
    path.write_bytes(pickle.dumps(data))
    return path


def assert_holds(item, i):
    np.testing.assert_allclose(item["image"][0].numpy(), GREY[i].T, atol=1e-4)
    np.testing.assert_array_equal(item["label"].numpy(), MASKS[i].transpose(2, 1, 0))


def test_hdf5_of_bytes_is_read_without_copies(tmp_path):
    write_hdf5(tmp_path / "data_lidc.hdf5")
    items = lidc(tmp_path, "val")
    assert len(items) == 14
    for i, item in enumerate(items):
        assert_holds(item, i)
    assert items[3]["patient"] == "101"
    assert str(items[3]["image"].dtype) == "torch.uint8"
    storages = {item["label"].as_tensor().untyped_storage().data_ptr() for item in items}
    assert len(storages) == 1
    assert items[0]["label"].is_contiguous()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [-0.5, 0.0])
def test_bytes_and_floats_give_equal_images(tmp_path, dtype, shift):
    path = write_hdf5(tmp_path / "x.h5", (GREY / 255 + shift).astype(dtype))
    for i, item in enumerate(lidc(path, "train")):
        assert_holds(item, i)
        assert str(item["image"].dtype) == "torch.float32"


def test_spacing_and_slice_ids_are_used(tmp_path):
    ids = np.array([f"LIDC-IDRI-0001/slice-{i}" for i in range(14)], dtype="S")
    item = lidc(write_hdf5(tmp_path / "x.hdf5", slice_ids=ids, spacing=np.full(14, 0.7)), "test")[2]
    assert item["case"] == "LIDC-IDRI-0001_slice-2"
    assert item["image"].pixdim.tolist() == [0.7, 0.7]


def test_limit_is_evenly_spaced_over_chunks(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        group = file.create_group("train")
        group.create_dataset("images", data=np.tile(GREY, (100, 1, 1)), chunks=(9, 6, 5))
        group["labels"], group["uids"] = np.tile(MASKS, (100, 1, 1, 1)), np.arange(1400)
    whole, part = lidc(tmp_path / "x.hdf5", "train"), lidc(tmp_path / "x.hdf5", "train", limit=12)
    assert len(whole) == 1400
    assert [item["case"] for item in part] == [whole[round(i * 1399 / 11)]["case"] for i in range(12)]
    for item in part:
        assert_holds(item, int(item["patient"]) % 14)


def test_a_rater_of_minus_one_survives(tmp_path):
    labels = MASKS.astype(np.int64)
    labels[..., 2] = -1
    label = lidc(write_hdf5(tmp_path / "x.hdf5", labels=labels), "train")[0]["label"]
    assert (label[2] == -1).all()
    assert str(label.dtype) == "torch.int16"


def test_patients_in_two_splits_warn(tmp_path):
    with h5py.File(write_hdf5(tmp_path / "x.hdf5"), "r+") as file:
        file["val/uids"][:] = file["train/uids"][:]
    with pytest.warns(UserWarning, match="7 patients are in more than one split"):
        lidc(tmp_path / "x.hdf5", "train")


@pytest.mark.parametrize("keep", [0.0, 0.4, 0.9])
def test_truncated_hdf5_is_named(tmp_path, keep):
    path = write_hdf5(tmp_path / "x.hdf5")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"x\.hdf5 is not a whole HDF5 file.*again"):
        lidc(path, "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": GREY[:13]}, r"images \(13, 6, 5\)"),
        ({"labels": MASKS[..., 0]}, r"labels \(14, 6, 5\)"),
        ({"labels": MASKS / 1.0}, "labels are float64"),
        ({"images": GREY.astype(np.int16)}, "images are int16"),
        ({"images": GREY - 1000.0}, r"\[-1000, -745\]"),
        ({"images": np.full_like(GREY, np.nan, dtype=float)}, "nan"),
    ],
)
def test_wrong_hdf5_content_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        lidc(write_hdf5(tmp_path / "x.hdf5", **changes), "train")


def test_a_class_id_that_no_byte_holds_is_refused(tmp_path):
    labels = MASKS.astype(np.uint16)
    labels[3, 0, 0, 0] = 256  # 0 in a byte
    path = write_hdf5(tmp_path / "x.hdf5", labels=labels)
    with pytest.raises(ValueError, match=r"x\.hdf5: /train/labels holds values from 0 to 256.*within 0 and 255"):
        lidc(path, "train")
    labels = MASKS.astype(np.int64)
    labels[3, 0, 0, 0] = 2**16
    with pytest.raises(ValueError, match="holds values from 0 to 65536"):
        lidc(write_hdf5(tmp_path / "y.hdf5", labels=labels), "train")


@pytest.mark.parametrize("split", SPLITS)
def test_floats_are_scaled_by_the_whole_file(tmp_path, split, caplog):
    """A dark case of [0, 1] has the range of [-0.5, 0.5]: whichever is seen first must not decide."""
    images = (GREY / 255).astype(np.float32)
    images[:7] *= 0.45
    path = write_hdf5(tmp_path / "x.hdf5", images)
    with caplog.at_level("INFO", logger="monai_flowssn.data.lidc_idri"):
        dark = lidc(path, split, limit=1)[0]["image"]
    np.testing.assert_allclose(dark[0].numpy(), GREY[0].T * 0.45, atol=1e-3)
    assert "images lie in [0, 1] and are read as [-0, 1]" in caplog.text or "are read as [0, 1]" in caplog.text


def test_links_and_storage_elsewhere_are_refused(tmp_path):
    write_hdf5(tmp_path / "other.hdf5")
    with h5py.File(write_hdf5(tmp_path / "link.hdf5"), "r+") as file:
        del file["train/labels"]
        file["train/labels"] = h5py.ExternalLink("other.hdf5", "/val/labels")
    with pytest.raises(ValueError, match=r"link\.hdf5: '/train/labels' lies in another file"):
        lidc(tmp_path / "link.hdf5", "train")
    with h5py.File(write_hdf5(tmp_path / "storage.hdf5"), "r+") as file:
        del file["val/images"]
        file["val"].create_dataset("images", GREY.shape, np.uint8, external=[(str(tmp_path / "raw"), 0, GREY.size)])
    with pytest.raises(ValueError, match="'/val/images' lies in another file"):
        lidc(tmp_path / "storage.hdf5", "train")
    with h5py.File(write_hdf5(tmp_path / "virtual.hdf5"), "r+") as file:
        del file["train/images"]
        layout = h5py.VirtualLayout(GREY.shape, np.uint8)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "train/images", GREY.shape)
        file["train"].create_virtual_dataset("images", layout)
    with pytest.raises(ValueError, match="'/train/images' lies in another file"):
        lidc(tmp_path / "virtual.hdf5", "train")


@pytest.mark.parametrize("value", [2, 0.3, -1])
def test_a_mask_of_the_pickle_that_is_not_binary_is_refused(tmp_path, value):
    masks = [np.where(MASKS[0, ..., r] > 0, value, 0) for r in range(4)]
    with pytest.raises(ValueError, match="it must hold 0 and 1, or 0 and 255"):
        lidc(write_pickle(tmp_path / "x.pickle", masks=masks, image=GREY[0] / 255.0), "train")


def test_missing_groups_and_data_sets_are_named(tmp_path):
    path = write_hdf5(tmp_path / "x.hdf5")
    with h5py.File(path, "r+") as file:
        del file["val"], file["test/labels"]
    with pytest.raises(ValueError, match=r"no group 'val', only \['test', 'train'\]"):
        lidc(path, "val")
    with pytest.raises(ValueError, match=r"lacks \['labels'\]"):
        lidc(path, "test")


def test_an_empty_split_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        group = file.create_group("train")
        group["images"], group["labels"], group["uids"] = GREY[:0], MASKS[:0], UIDS[:0]
    with pytest.raises(ValueError, match="no case for the split 'train'"):
        lidc(tmp_path / "x.hdf5", "train")


def test_pickle_is_split_by_patient(tmp_path):
    path = write_pickle(tmp_path / "data_lidc.pickle")
    splits = {split: lidc(path, split) for split in SPLITS}
    cases = [item["case"] for items in splits.values() for item in items]
    assert len(cases) == len(set(cases)) == 14
    patients = [{item["patient"] for item in items} for items in splits.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 7
    for item in splits["train"]:
        assert_holds(item, int(item["case"].removeprefix("case").removesuffix("_png")))
    assert [item["case"] for item in lidc(tmp_path, "train")] == [item["case"] for item in splits["train"]]


def test_dark_slices_of_the_pickle_are_not_shifted(tmp_path):
    path = write_pickle(tmp_path / "x.pickle", image=np.full((6, 5), 0.2))
    np.testing.assert_allclose(lidc(path, "train")[0]["image"].numpy(), 51, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": GREY[0] * 1.0}, "beyond"),
        ({"image": np.full((6, 5), np.nan)}, "beyond"),
        ({"masks": [MASKS[0, ..., 0], MASKS[0, :4, :, 0]]}, "rater masks of sizes"),
        ({"masks": []}, "rater masks of sizes"),
    ],
)
def test_wrong_pickle_content_names_file_and_case(tmp_path, changes, message):
    path = write_pickle(tmp_path / "x.pickle", **changes)
    with pytest.raises(ValueError, match=rf"x\.pickle: case 'case\d+.png'.*{message}"):
        lidc(path, "train")


def test_another_pickle_is_refused(tmp_path):
    (tmp_path / "x.pickle").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="not the LIDC pickle"):
        lidc(tmp_path, "train")


@pytest.mark.parametrize(
    ("mask_folder", "pattern"), [("gt", "{}/z-12.5_c{}"), ("lesions", "{}_z-12.5_c{}")], ids=["kohl", "flat"]
)
def test_folders_with_splits(tmp_path, mask_folder, pattern):
    names = [pattern.format(f"LIDC-IDRI-000{i // 2}", i) for i in range(6)]
    write_tree(tmp_path / "train", names, mask_folder)
    items = lidc(tmp_path, "train")
    assert [item["patient"] for item in items] == [name[:14] for name in names]
    assert items[5]["case"] == "LIDC-IDRI-0002_z-12_5_c5"
    for i, item in enumerate(items):
        assert_holds(item, i)
    with pytest.raises(ValueError, match="val needs the folders"):
        lidc(tmp_path, "val")


def test_folders_without_splits_are_split_by_patient(tmp_path):
    write_tree(tmp_path, [f"p{UIDS[i]}/s{i}" for i in range(14)])
    patients = [{item["patient"] for item in lidc(tmp_path, split)} for split in SPLITS]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 7
    assert {item["patient"] for item in lidc(tmp_path, "train", seed=3)} != patients[0]


def test_folders_name_the_bad_picture(tmp_path):
    write_tree(tmp_path / "test", ["p/a", "p/b"])
    bad = tmp_path / "test/gt/p/b_l2.png"
    Image.fromarray(MASKS[0, :3, :, 0]).save(bad)
    with pytest.raises(ValueError, match=r"b\.png: rater masks of sizes"):
        lidc(tmp_path, "test")
    bad.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"b_l2\.png does not decode"):
        lidc(tmp_path, "test")


def test_wrong_arguments_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="split='validation'"):
        lidc(tmp_path, "validation")
    with pytest.raises(ValueError, match="does not exist"):
        lidc(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match="0 data files"):
        lidc(tmp_path, "train")
    for name in ("a.hdf5", "b.pickle"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"2 data files \['a.hdf5', 'b.pickle'\]"):
        lidc(tmp_path, "train")
    (tmp_path / "c.npz").touch()
    with pytest.raises(ValueError, match="unknown type"):
        lidc(tmp_path / "c.npz", "train")


def assert_folds(root, *, k, total):
    """Every patient tests once and validates once, in the folds that `fold_patients` deals; nobody is in two parts."""
    parts = [{s: lidc(root, s, folds=k, fold=fold, seed=2) for s in SPLITS} for fold in range(k)]
    patients = [{name: {item["patient"] for item in items} for name, items in part.items()} for part in parts]
    everyone = set().union(*patients[0].values())
    folds = [set(fold) for fold in fold_patients(everyone, k, seed=2)]
    assert [part["test"] for part in patients] == folds
    assert [part["val"] for part in patients] == [*folds[1:], folds[0]]
    assert all(sum(map(len, part.values())) == len(everyone) for part in patients)
    assert all(len({item["case"] for items in part.values() for item in items}) == total for part in parts)


def test_folds_of_the_hdf5_pool_its_groups(tmp_path):
    path = write_hdf5(tmp_path / "x.hdf5")
    assert_folds(path, k=4, total=42)
    for item in lidc(path, "test", folds=4, fold=1):
        assert item["case"].split("_")[0] == SPLITS[int(item["patient"]) // 100]
        assert_holds(item, int(item["case"].split("_")[1]))
    whole, part = lidc(path, "train", folds=4), lidc(path, "train", folds=4, limit=5)
    assert [item["case"] for item in part] == [whole[round(i * (len(whole) - 1) / 4)]["case"] for i in range(5)]
    with h5py.File(path, "r+") as file:
        del file["val"]
    assert len(lidc(path, "train")) == 14
    with pytest.raises(ValueError, match="no group 'val'"):
        lidc(path, "train", folds=4)


def test_folds_of_the_pickle_and_the_folders(tmp_path):
    assert_folds(write_pickle(tmp_path / "x.pickle"), k=3, total=14)
    write_tree(tmp_path / "flat", [f"p{UIDS[i]}/s{i}" for i in range(14)])
    assert_folds(tmp_path / "flat", k=7, total=14)
    for shift, split in enumerate(SPLITS):
        write_tree(tmp_path / "parts" / split, [f"p{UIDS[i] + 10 * shift}/s{i}" for i in range(4)])
    assert_folds(tmp_path / "parts", k=3, total=12)


@pytest.mark.parametrize("form", ["hdf5", "pickle", "tree"])
def test_the_contract_of_loaders(tmp_path, form):
    if form == "hdf5":
        root = write_hdf5(tmp_path / "x.hdf5", spacing=np.full(14, 0.7))
    elif form == "pickle":
        root = write_pickle(tmp_path / "x.pickle")
    else:
        root = tmp_path
        write_tree(root, [f"{UIDS[i]:04d}/slice{i}" for i in range(14)])
    check_loader(lidc, root)


def test_pictures_of_sixteen_bits_keep_their_greys(tmp_path):
    write_tree(tmp_path, [f"{UIDS[i]:04d}/slice{i}" for i in range(14)])
    for i in range(14):
        path = tmp_path / f"images/{UIDS[i]:04d}/slice{i}.png"
        Image.fromarray(GREY[i].astype(np.uint16) * np.uint16(257)).save(path)
    for item in lidc(tmp_path, "train"):
        assert_holds(item, int(item["case"].split("slice")[1]))
