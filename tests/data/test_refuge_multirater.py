import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose
from PIL import Image

from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.refuge_multirater import FOLDERS, TABLES, refuge
from monai_flowssn.data.splits import SPLITS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Y, X = np.mgrid[:48, :64]
RATERS = range(1, 8)


def disc(radius):
    return np.where(np.hypot(Y - 24, X - 20) < radius, 255, 0).astype(np.uint8)


def write_case(folder, name):
    """One case as the archive has it: the cup of rater i has the radius i + 3, the disc i + 8."""
    folder = folder / name
    folder.mkdir(parents=True)
    image = np.stack([X * 4, Y * 5, disc(10)], axis=-1).astype(np.uint8)
    Image.fromarray(image).save(folder / f"{name}.jpg", quality=95)
    (folder / f"{name}_cropped.jpg").write_bytes(b"not used")
    for rater in RATERS:
        Image.fromarray(disc(rater + 3)).save(folder / f"{name}_seg_cup_{rater}.png")
        Image.fromarray(disc(rater + 8)).save(folder / f"{name}_seg_disc_{rater}.png")
    return folder


@pytest.fixture
def root(tmp_path):
    for split in SPLITS:
        for number in range(4):
            write_case(tmp_path / f"{FOLDERS[split]}-400", f"{number:04d}")
    return tmp_path


def write_table(root, split, prefix="", **changes):
    """A table as the code of Flow-SSN reads it, whose paths begin with a prefix."""
    rows = []
    for folder in sorted((root / f"{FOLDERS[split]}-400").iterdir()):
        start = f"{prefix}{folder.parent.name}/{folder.name}/{folder.name}"
        masks = {f"seg_{s}_{r}_path": f"{start}_seg_{s}_{r}.png" for s in ("cup", "disc") for r in RATERS}
        rows.append({"img_path": f"{start}.jpg", **masks, **changes})
    with (root / TABLES[split]).open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if rows[0][name] is not None], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return root / TABLES[split]


def test_the_archive_is_read_in_monai_order(root):
    items = refuge(root, "val", size=64)
    assert [item["case"] for item in items] == [f"val_{number:04d}" for number in range(4)]
    for item in items:
        assert item["image"].shape == (3, 64, 64)
        assert item["label"].shape == (7, 64, 64)
        assert str(item["image"].dtype) == str(item["label"].dtype) == "torch.uint8"
        assert item["image"][0, 60].float().mean() > 230  # red grows with x, green with y
        assert item["image"][1, :, 60].float().mean() > 215
        assert item["image"][0, 2].float().mean() < 20
    areas = items[0]["label"].sum((1, 2)) * 48 / 64
    expected = [(disc(rater + 3) > 0).sum() for rater in RATERS]
    np.testing.assert_allclose(areas, expected, rtol=0.06)
    assert items[0]["label"][0, 20, 32] == 1  # the centre (20, 24) of the original


def test_structures_make_the_classes(root):
    cup, rim_and_cup = (refuge(root, "test", size=64, structures=s)[0]["label"] for s in (("cup",), ("disc", "cup")))
    np.testing.assert_array_equal(rim_and_cup == 2, cup == 1)
    whole = refuge(root, "test", size=64, structures=["disc"])[0]["label"]
    np.testing.assert_array_equal(rim_and_cup > 0, whole == 1)
    assert sorted(rim_and_cup.unique().tolist()) == [0, 1, 2]


@pytest.mark.parametrize("prefix", ["", "./", "/elsewhere/REFUGE-Multirater/", "C:\\data\\"])
def test_tables_find_their_files(root, prefix):
    for split in SPLITS:
        write_table(root, split, prefix)
    by_table = refuge(root, "train", size=32)
    for split in SPLITS:
        (root / TABLES[split]).unlink()
    for one, other in zip(by_table, refuge(root, "train", size=32), strict=True):
        assert one["case"] == other["case"]
        np.testing.assert_array_equal(one["label"], other["label"])


def test_a_table_may_name_jpegs_that_lie_there_as_png(root):
    for path in (root / "Training-400").glob("*/????.jpg"):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    assert len(refuge(root, "train", size=32)) == 4
    write_table(root, "train")
    assert len(refuge(root, "train", size=32)) == 4


def test_limit_is_evenly_spaced(root):
    assert [item["case"] for item in refuge(root, "train", size=32, limit=2)] == ["train_0000", "train_0003"]


def test_folds_pool_the_challenges_split(root):
    tests = [refuge(root, "test", size=8, folds=3, fold=fold) for fold in range(3)]
    cases = [item["case"] for items in tests for item in items]
    assert len(cases) == len(set(cases)) == 12
    names = {split: {item["case"] for item in refuge(root, split, size=8, folds=3, fold=1)} for split in SPLITS}
    assert names["test"] == {item["case"] for item in tests[1]}
    assert names["val"] == {item["case"] for item in tests[2]}
    assert names["train"] == {item["case"] for item in tests[0]}


def test_bad_masks_are_named(root):
    bad = root / "Test-400/0002/0002_seg_cup_5.png"
    three = disc(9) // 2 + disc(20) // 2
    for content, message in (
        (three, r"0002_seg_cup_5\.png has areas that are neither"),
        (disc(9)[:, 1:], r"0002_seg_cup_5\.png is \(63, 48\), its image \(64, 48\)"),
    ):
        Image.fromarray(content).save(bad)
        with pytest.raises(ValueError, match=message):
            refuge(root, "test", size=32)
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"0002_seg_cup_5\.png does not decode"):
        refuge(root, "test", size=32)
    bad.unlink()
    with pytest.raises(ValueError, match=r"0002_seg_cup_5\.png is missing"):
        refuge(root, "test", size=32)


def test_bad_tables_are_named(root):
    table = write_table(root, "train", seg_cup_3_path=None)
    with pytest.raises(ValueError, match=r"line 2 has no \['seg_cup_3_path'\].*all seven raters"):
        refuge(root, "train")
    write_table(root, "train", seg_cup_3_path="nowhere/x.png")
    with pytest.raises(ValueError, match=r"refuge_train\.csv names nowhere/x\.png, which is missing"):
        refuge(root, "train")
    table.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"refuge_train\.csv is not a readable table"):
        refuge(root, "train")
    table.write_text("img_path,seg_cup_1_path\n")
    with pytest.raises(ValueError, match="no case for the split 'train'"):
        refuge(root, "train")


def test_wrong_arguments_say_what_to_do(root):
    for options, message in (
        ({"structures": ["cup", "cup"]}, "name one or both"),
        ({"structures": ["macula"]}, r"structures=\['macula'\]"),
        ({"structures": []}, "name one or both"),
        ({"size": 0}, "size=0"),
        ({"fold": 2}, "fold=2 without folds"),
    ):
        with pytest.raises(ValueError, match=message):
            refuge(root, "train", **options)
    with pytest.raises(ValueError, match="split='valid'"):
        refuge(root, "valid")
    shutil.rmtree(root / "Validation-400")
    with pytest.raises(ValueError, match=r"neither the table refuge_valid\.csv nor a folder Validation-400"):
        refuge(root, "val")


def test_the_config_makes_cases_for_a_network(root):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "common.yaml"), str(CONFIGS / "data" / "refuge.yaml")])
    parser.update(
        {
            "dataset_dir": str(root),
            "spatial_size": [32, 32],
            "structures": ["disc", "cup"],
            "data::folds": 3,
            "data::fold": 1,
        }
    )
    data = parser.get_parsed_content("data")
    items = data.items("train")
    assert len(items) == 4
    assert data.num_classes == 3
    item = Compose(data.training(parser.get_parsed_content("spatial_size")))(items[0])
    assert item["image"].shape == (3, 32, 32)
    assert item["label"].shape == (7, 32, 32)
    assert set(item["label"].unique().tolist()) <= {0, 1, 2}
    assert -2 <= item["image"].min() < item["image"].max() <= 2


def test_the_contract_of_loaders(root):
    check_loader(refuge, root, size=32, structures=("disc", "cup"))
