"""A small data set whose every number is known, and every fault that training would stumble on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from monai.transforms import Compose
from PIL import Image

from monai_flowssn.check import describe, entries, leaks, read, suggest, summary
from monai_flowssn.cli import main
from monai_flowssn.data import datalist
from monai_flowssn.workflows import Data


def save(path: Path, array: np.ndarray) -> str:
    Image.fromarray(array.astype(np.uint8)).save(path)
    return path.name


def square(first: int, last: int, value: int = 255) -> np.ndarray:
    mask = np.zeros((40, 40))
    mask[first:last, first:last] = value
    return mask


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two cases: IoU of the raters 1/4 and, with two empty masks, 1; the third rater did not see the second case."""
    generator = np.random.default_rng(0)
    cases = []
    for name, masks in {
        "a": (square(10, 20), square(10, 15), square(0, 0)),
        "b": (square(0, 0), square(0, 0), None),
    }.items():
        labels = [None if m is None else save(tmp_path / f"{name}{r}.png", m) for r, m in enumerate(masks)]
        image = save(tmp_path / f"{name}.png", generator.integers(0, 256, (40, 40)))
        cases.append({"image": image, "label": labels, "patient": name})
    write(tmp_path, {"training": cases})
    return tmp_path / "datalist.json"


def write(folder: Path, lists: dict) -> None:
    (folder / "datalist.json").write_text(json.dumps(lists))


def test_numbers_of_a_known_data_set(pictures: Path) -> None:
    cases = [describe(entry, read(entry)) for entry in entries(pictures)]
    first, second = cases
    assert first.values == {0.0: 3 * 1600 - 125, 255.0: 125}
    assert first.empty == (False, False, True)
    assert second.empty == (True, True, None)
    assert first.iou == pytest.approx((1 / 4 + 0 + 0) / 3)
    assert first.hm_iou == pytest.approx((1 / 4 + 0 + 0) / 3)  # one against one, of three
    assert (second.iou, second.hm_iou) == (1, 1)
    assert (first.extent, second.extent) == ((10, 10), None)
    text = summary(cases)
    for told in ("training:          2 cases of 2 patients", "value 255:         class 1, 1.56% of the pixels"):
        assert told in text
    assert "rater 1:           2 masks, 50% of them empty" in text
    assert "rater 2:           1 masks, 100% of them empty" in text
    assert "raters of a case:  2 (1 cases), 3 (1 cases)" in text
    assert not leaks(cases)


def test_four_raters_are_halved_in_three_ways(tmp_path: Path) -> None:
    masks = [square(0, 10), square(0, 10), square(20, 30), square(20, 30)]
    labels = [save(tmp_path / f"{r}.png", mask) for r, mask in enumerate(masks)]
    write(tmp_path, {"training": [{"image": save(tmp_path / "image.png", square(5, 9)), "label": labels}]})
    (entry,) = entries(tmp_path / "datalist.json")
    case = describe(entry, read(entry))
    assert case.iou == pytest.approx(2 / 6)
    assert case.hm_iou == pytest.approx((0 + 1 + 1) / 3)  # {0, 1} against {2, 3}, and twice a pair of each kind


def test_options_that_fit(pictures: Path, tmp_path: Path) -> None:
    options = suggest([describe(entry, read(entry)) for entry in entries(pictures)])
    assert (options.channels, options.num_classes, options.class_values, options.raters) == (1, 2, [0, 255], 3)
    assert (options.intensity_range, options.spatial_dims, options.spatial_size) == ([0, 255], 2, [64, 64])
    assert options.crops == "anywhere"
    # marked nearly everywhere: the whole image, resized
    write(
        tmp_path,
        {
            "training": [
                {"image": save(tmp_path / "i.png", square(3, 9)), "label": save(tmp_path / "l.png", square(2, 38))}
            ]
        },
    )
    assert suggest([describe(entry, read(entry)) for entry in entries(pictures)]).crops == "whole"


def test_a_volume_in_hounsfield_units(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(-300, 200, (50, 60, 20)).astype(np.float32)
    mask = np.zeros(volume.shape, np.uint8)
    mask[10:40, 10:30, 5:9], mask[30:35, 10:15, 5:9] = 1, 2
    affine = np.diag([0.7, 0.7, 2.5, 1])
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    write(tmp_path, {"training": [{"image": "ct.nii.gz", "label": ["mask.nii.gz"]}]})
    (entry,) = entries(tmp_path / "datalist.json")
    case = describe(entry, read(entry))
    assert case.spacing == pytest.approx((0.7, 0.7, 2.5))
    assert np.isnan(case.iou)
    options = suggest([case])
    assert (options.num_classes, options.class_values, options.spatial_dims, options.spatial_size) == (
        3,
        [],
        3,
        [48, 48, 16],
    )
    np.testing.assert_allclose(options.intensity_range, np.percentile(volume, [0.5, 99.5]), rtol=0.1)


def test_the_command_writes_what_training_takes(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    folder = pictures.parent / "mine"
    main(["check", str(pictures), "--into", str(folder)])
    assert "monai-flowssn train ssn" in capsys.readouterr().out
    overlay = yaml.safe_load((folder / "my_data.yaml").read_text())
    assert overlay["datalist_file"] == str(pictures)
    assert overlay["data"]["class_values"] == [0, 255]
    with Image.open(folder / "my_data.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (colours == (0x2C, 0xE5, 0xFF)).all(1).sum() > 50  # the first rater's outline and its key


def test_every_fault_is_told_in_one_run(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    folder = pictures.parent
    lists = json.loads(pictures.read_text())
    first = lists["training"][0]
    moved = {
        "image": first["image"],
        "label": [save(folder / "small.png", square(1, 5)[:30]), None],
        "case": "small",
        "patient": "c",
    }
    flat = {"image": save(folder / "flat.png", square(0, 40, 7)), "label": [None, None], "case": "flat", "patient": "d"}
    missing = {"image": "nowhere.png", "label": ["a0.png"], "case": "missing", "patient": "e"}
    write(folder, {**lists, "test": [{**first, "case": "again"}, moved, flat, missing]})
    with pytest.raises(SystemExit):
        main(["check", str(pictures), "--into", str(folder)])
    told = capsys.readouterr().out
    for fault in (
        "patient a is in the lists test and training",
        "one image 2 times: a (training), again (test)",
        "flat: all of the image is 7",
        "nowhere.png",
        "small.png has size",
        "1 without any mask",
    ):
        assert fault in told


def test_what_is_no_datalist(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not a readable JSON file"):
        main(["check", str(tmp_path / "none.json")])
    write(tmp_path, {"training": []})
    with pytest.raises(ValueError, match="no entries"):
        entries(tmp_path / "datalist.json")
    write(tmp_path, {"training": [{"label": "a.png"}]})
    with pytest.raises(ValueError, match="has no 'image'"):
        entries(tmp_path / "datalist.json")


def test_what_training_refuses_is_a_fault(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    lists = json.loads(pictures.read_text())
    lists["training"][0]["label"][1] = lists["training"][0]["label"][0]
    write(pictures.parent, lists)
    with pytest.raises(SystemExit):
        main(["check", str(pictures), "--into", str(pictures.parent)])
    assert "a0.png stands in case 'a' of training and again" in capsys.readouterr().out


def test_what_differs_between_cases_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    empty = save(tmp_path / "mask.png", square(0, 0))
    other = save(tmp_path / "other.png", square(0, 0))
    pair = [{"image": save(tmp_path / "grey.png", colours[..., 0]), "label": empty}]
    pair += [{"image": save(tmp_path / "colour.png", colours), "label": other}]
    write(tmp_path, {"training": pair})
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path / "datalist.json"), "--into", str(tmp_path)])
    told = capsys.readouterr().out
    assert "images have 1 (1 cases), 3 (1 cases) channels; all need as many" in told
    assert "the masks hold [0]; a class and a background are needed" in told


def test_volumes_of_one_slice_are_images(tmp_path: Path) -> None:
    generator, cases = np.random.default_rng(0), []
    for i in range(3):
        arrays = {"image": generator.normal(size=(96, 80, 1)), "a": np.zeros((96, 80, 1)), "b": np.zeros((96, 80, 1))}
        for mask in (arrays["a"], arrays["b"]):
            mask[20:40, 30:50] = 1
        for name, array in arrays.items():
            image = nibabel.Nifti1Image(array.astype(np.float32), np.diag([0.5, 0.5, 3, 1]))
            nibabel.save(image, tmp_path / f"{name}{i}.nii.gz")
        cases.append({"image": f"image{i}.nii.gz", "label": [f"a{i}.nii.gz", f"b{i}.nii.gz"], "patient": str(i)})
    write(tmp_path, {"training": cases})
    options = suggest([describe(entry, read(entry)) for entry in entries(tmp_path / "datalist.json")])
    assert (options.spatial_dims, options.spatial_size) == (2, [64, 64])
    data = Data(
        name="own",
        cases=partial(datalist, tmp_path / "datalist.json"),
        channels=1,
        num_classes=2,
        raters=2,
        intensity_range=[-3, 3],
        crops="anywhere",
    )
    items = data.items("train")
    (case,) = Compose(data.validation([64, 64]))(items[0])["label"][None]
    assert case.shape == (2, 64, 64)
    assert case.pixdim[:2].tolist() == [0.5, 0.5]
    assert case[0].sum() == 400
