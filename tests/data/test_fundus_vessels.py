import gzip
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.fundus_vessels import field_of_view, retinal_vessel
from monai_flowssn.data.splits import SPLITS

SIZE = (50, 40)  # width, height
Y, X = np.mgrid[:40, :50]
DISC = (Y - 20) ** 2 + (X - 25) ** 2 < 17**2


def photograph():
    image = np.random.default_rng(0).integers(0, 12, (40, 50, 3))
    image[DISC] += [180, 90, 40]
    image[18:21] = np.where(DISC[18:21, :, None], [60, 30, 20], image[18:21])  # a dark vessel
    return Image.fromarray(image.astype(np.uint8))


def mask(row):
    array = np.zeros((40, 50), np.uint8)
    array[row, 10:40] = 255
    return Image.fromarray(array)


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture
def root(tmp_path):
    for i in range(1, 8):
        drive, stare, chase = tmp_path / "DRIVE/test", tmp_path / "STARE", tmp_path / "CHASE_DB1"
        save(photograph(), drive / f"images/{i:02d}_test.tif")
        save(Image.fromarray(255 * DISC.astype(np.uint8)), drive / f"mask/{i:02d}_test_mask.gif")
        save(mask(10), drive / f"1st_manual/{i:02d}_manual1.gif")
        save(mask(30), drive / f"2nd_manual/{i:02d}_manual2.gif")
        save(photograph(), stare / f"stare-images/im{i:04d}.ppm")
        save(mask(10), stare / f"labels-ah/im{i:04d}.ah.ppm")
        save(mask(30), stare / f"labels-vk/im{i:04d}.vk.ppm")
        for eye in "LR":
            save(photograph(), chase / f"Image_{i:02d}{eye}.jpg")
            save(mask(10).convert("1"), chase / f"Image_{i:02d}{eye}_1stHO.png")
            save(mask(30).convert("1"), chase / f"Image_{i:02d}{eye}_2ndHO.png")
    return tmp_path


def test_every_set_is_read_in_monai_order(root):
    items = [item for split in SPLITS for item in retinal_vessel(root, split, height=40)]
    assert len(items) == 28
    for item in items:
        assert item["image"].shape == (3, 50, 40)
        assert item["label"].shape == (2, 50, 40)
        np.testing.assert_array_equal(item["label"][0].numpy().T, np.asarray(mask(10)) > 0)
        np.testing.assert_array_equal(item["label"][1].numpy().T, np.asarray(mask(30)) > 0)
        found = item["fov"][0].numpy().T.astype(bool)
        assert (found & DISC).sum() / (found | DISC).sum() > (0.999 if "DRIVE" in item["case"] else 0.75)
        assert abs(item["image"].numpy().transpose(2, 1, 0) - np.asarray(photograph(), float)).mean() < 10


def test_both_eyes_stay_together_and_every_split_has_every_set(root):
    splits = [retinal_vessel(root, split) for split in SPLITS]
    patients = [{item["patient"] for item in items} for items in splits]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 21
    assert all(len([i for i in items if i["patient"] == p]) == 2 for items in splits for p in
               {i["patient"] for i in items if i["case"].startswith("CHASE")})  # fmt: skip
    for items in splits:
        assert {item["case"].split("-")[0] for item in items} == {"DRIVE", "STARE", "CHASE"}
    other = {item["case"] for item in retinal_vessel(root, "test", seed=1)}
    assert other != {item["case"] for item in splits[2]}


def test_every_fold_has_every_set(root):
    folds = [retinal_vessel(root, "test", height=20, folds=7, fold=fold) for fold in range(7)]
    assert len({item["case"] for items in folds for item in items}) == sum(map(len, folds)) == 28
    for items in folds:
        assert sorted(item["case"].split("-")[0] for item in items) == ["CHASE", "CHASE", "DRIVE", "STARE"]
    val = {item["case"] for item in retinal_vessel(root, "val", height=20, folds=7, fold=2)}
    assert val == {item["case"] for item in folds[3]}
    assert len(retinal_vessel(root, "train", height=20, folds=7, fold=2)) == 20


def test_resize_keeps_the_aspect_and_thin_vessels_whole(root):
    item = retinal_vessel(root, "train", height=30)[0]
    assert item["image"].shape == (3, 38, 30)
    assert item["label"].unique().tolist() == [0, 1]
    _, pieces = ndimage.label(item["label"][0].numpy(), np.ones((3, 3)))
    assert pieces == 1


def test_gzipped_pictures_are_read(root):
    for path in [*(root / "STARE").rglob("*.ppm")]:
        with path.open("rb") as source, gzip.open(f"{path}.gz", "wb") as target:
            shutil.copyfileobj(source, target)
        path.unlink()
    cases = {item["case"] for split in SPLITS for item in retinal_vessel(root, split)}
    assert {f"STARE-im000{i}" for i in range(1, 8)} <= cases


def test_field_of_view_fills_dark_vessels_and_drops_specks():
    image = np.array(photograph())
    image[1:5, 44:48] = 200  # a bright scratch outside
    found = field_of_view(image.transpose(2, 1, 0)) > 0  # (x, y)
    assert found[25, 19]
    assert not found[45, 2]


def test_a_part_of_the_sets_warns(root):
    shutil.rmtree(root / "STARE")
    with pytest.warns(UserWarning, match=r"only \['CHASE', 'DRIVE'\]"):
        retinal_vessel(root, "train")


def test_bad_folders_and_files_are_named(root, tmp_path):
    with pytest.raises(ValueError, match="unpack at least one"):
        retinal_vessel(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match="height=0"):
        retinal_vessel(root, "train", height=0)
    with pytest.raises(ValueError, match="split='validate'"):
        retinal_vessel(root, "validate")
    for path in (root / "STARE/labels-vk").iterdir():
        save(mask(10).crop((0, 0, 49, 40)), path)
    with pytest.raises(ValueError, match=r"vk\.ppm is \(49, 40\), its image \(50, 40\)"):
        retinal_vessel(root, "train")
    shutil.rmtree(root / "STARE/labels-vk")
    with pytest.raises(ValueError, match=r"labels-vk.*is missing"):
        retinal_vessel(root, "train")


def test_the_contract_of_loaders(root):
    check_loader(retinal_vessel, root, height=40)
