"""Objects of a series' study: every voxel in its place, valid, and read by the field's other tools."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import run
from tiny_scales import tiny_scale

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")

from dicom_phantom import AFFINE, ROW, SPACING, write_maps, write_phantom  # noqa: E402

from monai_flowssn.dicom.objects import UNCERTAINTY, make_objects, write_objects  # noqa: E402
from monai_flowssn.dicom.series import OPTIONAL, read_series  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.filterwarnings("ignore")


def placed(volume: hd.Volume, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of a DICOM volume in the voxels of the phantom, by their places alone."""
    array = np.squeeze(volume.array)
    index = np.indices(array.shape).reshape(3, -1)
    places = np.diag([-1, -1, 1, 1]) @ volume.affine @ np.concatenate([index, np.ones_like(index[:1])])  # LPS to RAS
    found = np.linalg.solve(AFFINE, places)[:3]
    np.testing.assert_allclose(found, np.rint(found), atol=1e-2)
    values = np.zeros(shape, array.dtype)
    values[tuple(np.rint(found).astype(int))] = array.reshape(-1)
    return values


@pytest.mark.parametrize("classes", [1, 2])
def test_every_voxel_is_in_its_place(classes: int, tmp_path: Path) -> None:
    write_phantom(tmp_path / "series")
    maps = write_maps(tmp_path / "scan", classes=classes)
    paths = write_objects(tmp_path / "scan", read_series(tmp_path / "series"))
    names = [path.name.removeprefix("scan_").removesuffix(".dcm") for path in paths]
    assert names == ["segmentation", "draw_001", "draw_002", "draw_003", "entropy", "mutual_information"]
    labels = [maps["segmentation"], *np.moveaxis(maps["draws"], -1, 0)]
    for path, expected in zip(paths[:4], labels):
        segmentation = hd.seg.segread(path)
        assert list(segmentation.segment_numbers) == list(range(1, classes + 1))
        for number in segmentation.segment_numbers:
            found = placed(segmentation.get_volume(segment_numbers=[number]), expected.shape)
            np.testing.assert_array_equal(found > 0, expected == number)
    for path, name in zip(paths[4:], names[4:]):
        found = placed(hd.imread(path).get_volume(), maps[name].shape)
        np.testing.assert_allclose(found, maps[name], atol=1e-6)
    read = [pydicom.dcmread(path) for path in paths]
    assert len({each.StudyInstanceUID for each in read}) == 1
    assert [each.SeriesNumber for each in read] == [900, 901, 901, 901, 902, 903]
    assert len({each.SeriesInstanceUID for each in read}) == 4
    assert [each.InstanceNumber for each in read[1:4]] == [1, 2, 3]


def test_a_series_as_inference_reads_it(tiny_options: dict, tmp_path: Path) -> None:
    write_phantom(tmp_path / "series")
    entry = {"image": "series", "patient": "p1", "case": "scan"}
    (tmp_path / "datalist.json").write_text(json.dumps({"test": [entry]}))
    bundle = ROOT / "bundles" / "ssn_segmentation" / "configs"
    tiny_options = {**tiny_scale("ssn"), **tiny_options}
    run("training", config_file=str(bundle / "train.yaml"), **tiny_options)  # it has to run, not to be good
    options = {**tiny_options, "datalist_file": str(tmp_path / "datalist.json"), "data::intensity_range": [-1000, 400]}
    options["force_options"] = True  # it was trained on other intensities
    del options["dataset_dir"]
    files = [str(bundle / "inference.yaml"), str(ROOT / "configs" / "data" / "datalist.yaml")]
    run("inference", config_file=files, **options)

    case = tmp_path / "runs" / "inference" / "scan"
    draws = nibabel.load(case / "scan_draws.nii.gz")
    np.testing.assert_allclose(draws.affine, AFFINE, atol=1e-4)
    made = dict(make_objects(case, read_series(tmp_path / "series")))
    for number in range(3):
        expected = np.asarray(draws.dataobj)[..., number]
        found = placed(made[f"draw_{number + 1:03}"].get_volume(), expected.shape)
        np.testing.assert_array_equal(found > 0, expected > 0)


@pytest.mark.parametrize("classes", [1, 2])
def test_dciodvfy_finds_no_error(classes: int, tmp_path: Path) -> None:
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not here: apt-get install dicom3tools")
    write_phantom(tmp_path / "series")
    write_maps(tmp_path / "scan", classes=classes)
    for path in write_objects(tmp_path / "scan", read_series(tmp_path / "series")):
        told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
        assert "Error" not in told, f"{path.name}: {told}"


def test_dcmqi_reads_every_object(tmp_path: Path) -> None:
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if not shutil.which("paramap2itkimage", path=search):
        pytest.skip("dcmqi is not here: pip install dcmqi")
    write_phantom(tmp_path / "series")
    maps = write_maps(tmp_path / "scan", classes=2)
    for path in write_objects(tmp_path / "scan", read_series(tmp_path / "series")):
        name = path.stem.removeprefix("scan_")
        segments = name not in UNCERTAINTY
        program = shutil.which("segimage2itkimage" if segments else "paramap2itkimage", path=search)
        command = [program, "--inputDICOM", path, "--outputType", "nii"]
        out = tmp_path / name
        out.mkdir()
        subprocess.run([*command, "--outputDirectory", out, "--prefix", "read"], check=True, capture_output=True)
        if segments:
            assert {each.name for each in out.glob("*.nii.gz")} == {"read-1.nii.gz", "read-2.nii.gz"}
            continue
        found = nibabel.load(next(out.glob("*.nii.gz")))
        np.testing.assert_allclose(np.sort(found.get_fdata(), axis=None), np.sort(maps[name], axis=None), atol=1e-6)


def test_missing_optional_attributes_do_not_stop_it(tmp_path: Path) -> None:
    write_phantom(tmp_path / "series")
    write_maps(tmp_path / "scan")
    for path in (tmp_path / "series").iterdir():
        image = pydicom.dcmread(path)
        for name in (*OPTIONAL, "Manufacturer", "SeriesNumber", "InstanceNumber", "SliceThickness"):
            del image[name]
        image.save_as(path)
    made = dict(make_objects(tmp_path / "scan", read_series(tmp_path / "series")))
    assert made["entropy"].PatientBirthDate in (None, "")


def test_a_folder_of_two_series_asks_which(tmp_path: Path) -> None:
    first = write_phantom(tmp_path, SeriesDescription="lung")
    second = write_phantom(tmp_path, SeriesDescription="soft tissue")
    with pytest.raises(
        ValueError, match=f"2 series.*\n.*{first}  5 slices  CT lung|{second}  5 slices  CT soft tissue"
    ):
        read_series(tmp_path)
    assert {image.SeriesInstanceUID for image in read_series(tmp_path, second)} == {second}
    with pytest.raises(ValueError, match="no series 1.2.3"):
        read_series(tmp_path, "1.2.3")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 series"):
        read_series(tmp_path / "empty")


def test_maps_of_another_place_are_refused(tmp_path: Path) -> None:
    write_phantom(tmp_path / "series")
    write_maps(tmp_path / "scan")
    for path in (tmp_path / "series").iterdir():  # one voxel further along the rows
        moved = pydicom.dcmread(path)
        moved.ImagePositionPatient = [float(v) for v in np.array(moved.ImagePositionPatient) + SPACING[1] * ROW]
        moved.save_as(path)
    with pytest.raises(ValueError, match="does not lie on the voxels of the series"):
        write_objects(tmp_path / "scan", read_series(tmp_path / "series"))
    image = pydicom.dcmread(path)
    del image.FrameOfReferenceUID
    image.save_as(path)
    with pytest.raises(ValueError, match=f"{path.name} has no FrameOfReferenceUID"):
        read_series(tmp_path / "series")
