import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_flowssn.data.cases import make_case
from monai_flowssn.data.reading import load_case
from monai_flowssn.files import written_whole
from monai_flowssn.transforms import CropOnRatersd, DrawsToMapsd, InvertDrawsd
from monai_flowssn.transforms.saving import MAPS
from monai_flowssn.transforms.summary import SaveSummaryd, case_file, case_name


def case_of(draws: torch.Tensor, *, spacing: list[float], num_classes: int = 2) -> dict:
    """Maps by hand: entropies 0.5, 0.2 and 0.3 wherever a draw is foreground, 9 elsewhere."""
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    region = (draws > 0).any(0, keepdim=True)
    values = {
        "draws": draws,
        "mean": torch.zeros(num_classes - 1, *draws.shape[1:]),
        "segmentation": draws[:1],
        "entropy": torch.where(region, 0.5, 9.0),
        "expected_entropy": torch.where(region, 0.2, 9.0),
        "mutual_information": torch.where(region, 0.3, 9.0),
    }
    return {**{key: MetaTensor(value, affine=affine) for key, value in values.items()}, "case": "p1"}


def summary_of(data: dict, folder) -> dict:
    SaveSummaryd(folder)(data)
    return json.loads((folder / "p1" / "p1_summary.json").read_text())


def test_areas_by_hand(tmp_path):
    draws = torch.zeros(3, 4, 4, dtype=torch.uint8)  # 2, 0 and 4 pixels of 0.5 mm x 2 mm
    draws[0, 0, :2] = 1
    draws[2, 1, :4] = 1
    out = summary_of(case_of(draws, spacing=[0.5, 2.0, 1.0]), tmp_path)
    assert out["unit"] == "mm^2"
    assert out["spacing"] == [0.5, 2.0]
    assert out["num_draws"] == 3
    nodule = out["classes"]["1"]
    assert nodule["per_draw"] == [2.0, 0.0, 4.0]
    assert (nodule["mean"], nodule["median"], nodule["segmentation"]) == (2.0, 2.0, 2.0)
    assert nodule["interval_95"] == [0.1, 3.9]  # of the sorted 0, 2, 4: 0 + 0.05 * 2 and 4 - 0.05 * 2
    assert out["uncertainty"]["region_size"] == 6.0
    assert out["uncertainty"]["entropy"] == pytest.approx(0.5)
    assert out["uncertainty"]["expected_entropy"] == pytest.approx(0.2)
    assert out["uncertainty"]["mutual_information"] == pytest.approx(0.3)
    assert f"log 2 = {math.log(2):.4f}" in out["conventions"]["uncertainty"]


SLICE = np.diag([1.2, 1.2, 3, 1])  # of a scan: the third is the thickness, and no part of an area


def slices(folder):
    """A rectangle of 59 x 58 pixels, from a file and from a loader of somebody's own."""
    mask = np.zeros((80, 70), np.uint8)
    mask[10:69, 5:63] = 1
    nib.save(nib.Nifti1Image(mask.astype(np.float32), SLICE), folder / "i.nii.gz")
    yield load_case({"image": str(folder / "i.nii.gz"), "case": "p1"})
    yield make_case(mask[None].astype(np.float32), mask[None], patient="p", case="p1", affine=SLICE)


@pytest.mark.parametrize("inverted", [False, True])
def test_the_area_of_a_slice_of_a_scan(tmp_path, inverted):
    for case in slices(tmp_path):
        crop = Compose([CropOnRatersd("image", spatial_size=[64, 64], label_key=None)])
        seen = crop(case)
        draw = torch.stack([1 - seen["image"][0], seen["image"][0]]).as_tensor()
        data = DrawsToMapsd()({**seen, "pred": draw[None]})
        if inverted:
            data = InvertDrawsd(crop)(data)
            data = Invertd(keys=MAPS[1:], transform=crop, orig_keys="image", nearest_interp=True)(data)
        out = summary_of(data, tmp_path)
        assert out["unit"] == "mm^2"
        assert out["spacing"] == pytest.approx([1.2, 1.2])
        assert out["classes"]["1"]["segmentation"] == pytest.approx(4927.68)


def test_volumes_of_several_classes(tmp_path):
    draws = torch.zeros(2, 3, 3, 3, dtype=torch.uint8)
    draws[0, 0, 0, :2] = 1
    draws[0, 1, 0, :3] = 2
    draws[1, 1, 1, :1] = 2
    out = summary_of(case_of(draws, spacing=[1.0, 2.0, 3.0], num_classes=4), tmp_path)
    assert out["unit"] == "mm^3"
    assert {k: v["per_draw"] for k, v in out["classes"].items()} == {"1": [12, 0], "2": [18, 6], "3": [0, 0]}


@pytest.mark.parametrize(("size", "unit"), [((4, 4), "pixels"), ((4, 4, 4), "voxels")])
def test_unknown_spacing_counts(tmp_path, size, unit):
    out = summary_of(case_of(torch.ones(2, *size, dtype=torch.uint8), spacing=[1.0, 1.0, 1.0]), tmp_path)
    assert (out["unit"], out["spacing"]) == (unit, None)
    assert out["classes"]["1"]["per_draw"] == [float(4 ** len(size))] * 2


def test_empty_draws_have_no_region(tmp_path):
    out = summary_of(case_of(torch.zeros(2, 4, 4, dtype=torch.uint8), spacing=[1.0, 1.0, 1.0]), tmp_path)
    assert out["uncertainty"] == {
        "region_size": 0.0,
        "entropy": None,
        "expected_entropy": None,
        "mutual_information": None,
    }


@pytest.mark.parametrize(
    "case",
    [
        "..",
        ".",
        "",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "..\\..\\b",
        "a\0b",
        "C:\\b",
        "x" * 500,
        "病例" * 200,
    ],
)
def test_no_case_name_leaves_the_folder(tmp_path, case):
    path = case_file(tmp_path / "out", case, "summary.json")
    assert path.parent.parent == tmp_path / "out"
    assert path.resolve().is_relative_to((tmp_path / "out").resolve())
    assert path.parent.resolve() != (tmp_path / "out").resolve()
    with written_whole(path) as temporary:
        temporary.write_text("fits")
    assert path.read_text() == "fits"


def test_cases_never_share_a_file():
    names = ["a/b", "a_b", "a b", "a\\b", "a.b", ".a.b", "x" * 60, "x" * 61]
    assert len({case_file("out", name, "") for name in names}) == len(names)
    assert case_file("out", "1.3.6.1", "a.png").as_posix() == "out/1.3.6.1/1.3.6.1_a.png"


def test_case_name_falls_back_to_the_file():
    image = MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": "/data/1.3.6/scan.v2.nii.gz"})
    assert case_name({"case": "p1"}, image) == "p1"
    assert case_name({}, image) == "scan.v2"
    assert case_name({}, torch.zeros(1, 2, 2)) == "case"
