"""Any bundle on other data than its default, through configs/data/."""

from __future__ import annotations

import csv
import importlib
import json
import traceback
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import MetaTensor
from monai.transforms import Compose
from tiny_scales import tiny_scale

from monai_flowssn.data.embedded.contours import RATINGS, Contour, Nodule

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundles" / "flowssn_continuous_segmentation" / "configs"
pytestmark = pytest.mark.filterwarnings("ignore")


def run(file: str, data: str, options: dict) -> None:
    files = [str(BUNDLE / f"{file}.yaml"), str(ROOT / "configs" / "data" / f"{data}.yaml")]
    options = {**tiny_scale("flowssn_continuous"), **options}
    flow = ConfigWorkflow(config_file=files, workflow_type="train", logging_file=False, **options)
    flow.initialize()
    flow.run()
    flow.finalize()


@pytest.fixture
def own_data(tiny_options: dict, tmp_path: Path) -> dict:
    """Options for nine NIfTI images of 20 x 18 pixels, with one to three raters each."""
    generator = np.random.default_rng(0)
    affine = np.diag([0.7, 0.6, 1, 1])
    entries = []
    for case in range(9):
        image, names = generator.normal(-700, 50, (20, 18)).astype(np.float32), []
        for rater in range(3):
            mask = np.zeros((20, 18), np.uint8)
            mask[6 : 10 + rater, 5:9] = 1
            image += 200 * mask
            names.append(f"{case}_{rater}.nii.gz" if rater <= case % 3 else None)
            nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / f"{case}_{rater}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / f"{case}.nii.gz")
        entries.append({"image": f"{case}.nii.gz", "label": names, "patient": f"p{case}"})
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"training": entries[:5], "validation": entries[5:7], "test": entries[7:]}))
    options = {**tiny_options, "datalist_file": str(path), "data::intensity_range": [-1000, 400], "data::raters": 3}
    del options["dataset_dir"]
    return options


def test_own_files_train_evaluate_and_come_back_in_their_geometry(own_data: dict, tmp_path: Path) -> None:
    run("train", "datalist", own_data)
    run("evaluate", "datalist", own_data)
    with (tmp_path / "runs" / "evaluate" / "per_case.csv").open() as file:
        assert [row["patient"] for row in csv.DictReader(file)] == ["p7", "p8"]
    run("inference", "datalist", own_data)
    found = sorted((tmp_path / "runs" / "inference").rglob("*.nii.gz"))
    assert len(found) == 12
    for path in found:
        image = nibabel.load(path)
        assert image.shape[:2] == (20, 18), path.name
        assert np.allclose(image.affine[:2, :2], np.diag([0.7, 0.6])), path.name


def test_masks_of_other_values_than_class_ids(own_data: dict, tmp_path: Path) -> None:
    for path in tmp_path.glob("*_*.nii.gz"):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(255 * np.asarray(image.dataobj), image.affine), path)
    with pytest.raises(RuntimeError) as error:
        run("train", "datalist", own_data)
    assert "255 (16 pixels), but with num_classes=2" in "".join(traceback.format_exception(error.value))
    run("train", "datalist", {**own_data, "data::class_values": [0, 255]})
    assert (tmp_path / "models" / "model.pt").is_file()


def test_an_evaluation_that_meets_a_damaged_file_keeps_the_cases_before(own_data: dict, tmp_path: Path) -> None:
    run("train", "datalist", own_data)
    (tmp_path / "8.nii.gz").write_bytes(b"no image")
    with pytest.raises(RuntimeError):
        run("evaluate", "datalist", {**own_data, "batch_size": 1})
    with (tmp_path / "runs" / "evaluate" / "per_case_unfinished.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["patient"] == "p7"
    assert float(row["test_ged_v_n4"]) >= 0


def test_a_model_of_centre_crops_draws_the_centre_and_others_all(own_data: dict, tmp_path: Path) -> None:
    run("train", "datalist", own_data)
    other = {**own_data, "force_options": True}  # than those of its training
    for crops in ("centre", "anywhere", "whole"):
        run("inference", "datalist", {**other, "output_dir": str(tmp_path / "runs" / crops), "data::crops": crops})
    means = {
        crops: [nibabel.load(path).get_fdata() for path in (tmp_path / "runs" / crops).rglob("*mean.nii.gz")]
        for crops in ("centre", "anywhere", "whole")
    }
    assert all(np.squeeze(mean).shape == (20, 18) for maps in means.values() for mean in maps)
    assert all((mean[-1:] == 0).all() for mean in means["centre"])
    assert all((mean > 0).all() for crops in ("anywhere", "whole") for mean in means[crops])
    assert all((mean <= 1).all() for mean in means["whole"])
    run("evaluate", "datalist", {**own_data, "window": [16, 16]})
    assert (tmp_path / "runs" / "evaluate" / "per_case.csv").is_file()


@pytest.mark.parametrize("crops", ["centre", "anywhere", "whole"])
@pytest.mark.parametrize("data", sorted(path.stem for path in (ROOT / "configs" / "data").glob("*.yaml")))
def test_every_data_set_takes_every_kind_of_crop(data: str, crops: str, tmp_path: Path) -> None:
    """Training and validation see the same size, and inference what training taught."""
    volumes = data == "lidc_contours_volumes"
    size, window = ([20, 26, 10], [8, 8, 4]) if volumes else ([20, 26], [8, 8])
    parsers = {}
    for file in ("train", "evaluate", "inference"):
        parsers[file] = parser = ConfigParser()
        for path in (BUNDLE / f"{file}.yaml", ROOT / "configs" / "data" / f"{data}.yaml"):
            parser.update(ConfigParser.load_config_file(path))
        parser.update({"data::crops": crops, "spatial_size": window, "data::intensity_range": [0, 1]})
        parser.parse()
    facts = parsers["train"].get_parsed_content("data")
    channels, raters = facts.channels, facts.raters
    item = {"case": "a", "patient": "p", "image": MetaTensor(torch.rand(channels, *size))}
    item["label"] = MetaTensor((torch.rand(raters, *size) < 0.1).int())
    for id_ in ("train::preprocessing", "validate::preprocessing"):
        seen = parsers["train"].get_parsed_content(id_)(dict(item))
        assert seen["image"].shape == (channels, *window), id_
        assert seen["label"].shape == (raters, *window), id_
    seen = parsers["evaluate"].get_parsed_content("validate::preprocessing")(dict(item))
    assert list(seen["image"].shape[1:]) == (size if parsers["evaluate"].get_parsed_content("window") else window)
    image = parsers["inference"].get_parsed_content("preprocessing")({"image": item["image"]})["image"]
    geometry = parsers["inference"].get_parsed_content("data").geometry
    whole = Compose(list(geometry))({"image": item["image"]})["image"].shape[1:]
    assert tuple(image.shape[1:]) == (tuple(whole) if crops == "anywhere" else tuple(window))
    assert parsers["inference"].get_parsed_content("window") == (window if crops == "anywhere" else None)


def test_other_crops_are_refused() -> None:
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE / "train.yaml"))
    parser["data::crops"] = "center"
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content("data")
    assert "choose one of 'centre', 'anywhere', 'whole'" in str(error.value.__cause__)


def test_volumes_of_uneven_voxels_train_evaluate_and_come_back_in_theirs(
    tiny_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    square = np.array([[100, 200], [108, 200], [108, 208], [100, 208]])

    def nodule(patient: int) -> Nodule:
        raters = [[Contour(2.5 * k, square + rater, True) for k in range(3)] for rater in range(4)]
        return Nodule(f"LIDC-IDRI-{patient:04d}/nodule-0", patient, 0.7, 2.0, dict.fromkeys(RATINGS, 4.0), raters)

    module = importlib.import_module("monai_flowssn.data.embedded.nodule_volumes")
    monkeypatch.setattr(module, "find_database", lambda: None)
    monkeypatch.setattr(module, "read_nodules", lambda database: [nodule(patient) for patient in range(1, 9)])
    options = {**tiny_options, "spatial_size": [16, 16, 8], "dataset_dir": str(tmp_path / "data")}
    options["data::cases::size"] = 32
    run("train", "lidc_contours_volumes", options)
    run("evaluate", "lidc_contours_volumes", options)
    with (tmp_path / "runs" / "evaluate" / "per_case.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1
    run("inference", "lidc_contours_volumes", options)
    found = sorted((tmp_path / "runs" / "inference").rglob("*.nii.gz"))
    assert len(found) == 6
    for path in found:
        image = nibabel.load(path)
        assert image.shape[:3] == (32, 32, 7), path.name
        np.testing.assert_allclose(image.header.get_zooms()[:3], (0.7, 0.7, 2.5), rtol=1e-5)
    summary = json.loads(next((tmp_path / "runs" / "inference").rglob("*.json")).read_text())
    assert summary["unit"] == "mm^3"
