from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose
from PIL import Image

from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.kvasir_seg import kvasir
from monai_flowssn.data.splits import SPLITS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Y, X = np.mgrid[:40, :50]
POLYP = (np.abs(Y - 10) < 6) & (np.abs(X - 30) < 8)


@pytest.fixture
def root(tmp_path):
    """Twenty images in the layout of the archive, with masks as JPEG whose edges ring."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "kvasir_bboxes.json").write_text("{}")
    for number in range(20):
        colour = np.stack([X * 5, Y * 6, np.full_like(X, 10 * number)], axis=-1).astype(np.uint8)
        Image.fromarray(colour).save(tmp_path / f"images/cju{number:02d}.jpg", quality=95)
        mask = np.repeat(255 * POLYP[..., None], 3, axis=-1).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / f"masks/cju{number:02d}.jpg", quality=90)
    return tmp_path


def test_images_are_grey_squares_with_one_rater(root):
    items = [item for split in SPLITS for item in kvasir(root, split, size=32)]
    assert sorted(item["case"] for item in items) == [f"cju{number:02d}" for number in range(20)]
    for item in items:
        assert item["image"].shape == item["label"].shape == (1, 32, 32)
        assert str(item["image"].dtype) == str(item["label"].dtype) == "torch.uint8"
        assert item["image"][0, 28].float().mean() > item["image"][0, 3].float().mean() + 50  # x before y
        assert item["label"].unique().tolist() == [0, 1]
        assert item["label"][0, 19, 8] == 1  # (30, 10) of the original
        np.testing.assert_allclose(item["label"].sum() / 32**2, POLYP.mean(), rtol=0.15)


def test_tenfold_cross_validation_tests_every_image_once(root):
    folds = [{s: {i["case"] for i in kvasir(root, s, size=8, folds=10, fold=f)} for s in SPLITS} for f in range(10)]
    assert all({len(part["train"]), len(part["val"]), len(part["test"])} == {16, 2} for part in folds)
    assert all(not part["train"] & part["test"] and not part["val"] & (part["train"] | part["test"]) for part in folds)
    assert len(set().union(*(part["test"] for part in folds))) == 20
    assert folds[9]["val"] == folds[0]["test"]
    assert kvasir(root, "test", size=8, folds=10, seed=1)[0]["case"] not in folds[0]["test"]


def test_limit_is_evenly_spaced(root):
    whole, part = kvasir(root, "train", size=8), kvasir(root, "train", size=8, limit=3)
    assert [item["case"] for item in part] == [whole[i]["case"] for i in (0, 6, 13)]


def test_bad_files_are_named(root, tmp_path):
    bad = root / "masks/cju07.jpg"
    three = np.where(POLYP, 255, np.where(X < 12, 128, 0)).astype(np.uint8)
    for content, message in (
        (three, r"cju07\.jpg has areas that are neither"),
        (three[1:], r"cju07\.jpg is \(50, 39\), its image \(50, 40\)"),
    ):
        Image.fromarray(content).save(bad)
        with pytest.raises(ValueError, match=message):
            [kvasir(root, split) for split in SPLITS]
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"masks/cju07\.jpg does not decode"):
        [kvasir(root, split) for split in SPLITS]
    bad.unlink()
    with pytest.raises(ValueError, match=r"masks/cju07\.jpg is missing"):
        [kvasir(root, split) for split in SPLITS]


def test_wrong_arguments_say_what_to_do(root, tmp_path):
    for options, message in (
        ({"size": 0}, "size=0"),
        ({"folds": 2}, "folds >= 3"),
        ({"folds": 21}, "21 folds for 20 patients"),
        ({"folds": 10, "fold": 10}, "fold=10"),
        ({"limit": 0}, "limit=0"),
    ):
        with pytest.raises(ValueError, match=message):
            kvasir(root, "train", **options)
    with pytest.raises(ValueError, match=r"has no images/\*\.jpg"):
        kvasir(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match="split='all'"):
        kvasir(root, "all")


def test_the_config_makes_cases_for_a_network(root):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "common.yaml"), str(CONFIGS / "data" / "kvasir.yaml")])
    parser.update({"dataset_dir": str(root), "spatial_size": [16, 16], "data::folds": 10, "data::fold": 3})
    data = parser.get_parsed_content("data")
    items = data.items("test")
    assert [item["case"] for item in items] == [item["case"] for item in kvasir(root, "test", folds=10, fold=3)]
    item = Compose(data.training(parser.get_parsed_content("spatial_size")))(items[0])
    assert item["image"].shape == item["label"].shape == (1, 16, 16)
    assert -1 <= item["image"].min() < item["image"].max() <= 1


def test_the_contract_of_loaders(root):
    check_loader(kvasir, root, size=32)
