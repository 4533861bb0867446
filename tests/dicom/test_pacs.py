"""Orthanc on this machine: a series sent as a scanner does, results stored beside it, found by study, read by another tool."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from monai.bundle import run
from tiny_scales import tiny_scale

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from dicom_phantom import write_maps, write_phantom  # noqa: E402
from label_server import LABEL, serving  # noqa: E402

from monai_flowssn.cli import main  # noqa: E402
from monai_flowssn.dicom.objects import write_objects  # noqa: E402
from monai_flowssn.dicom.pacs import fetch_series, store_files  # noqa: E402
from monai_flowssn.dicom.series import read_series  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
SEARCH = os.environ["PATH"] + ":/usr/sbin"

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        not (shutil.which("Orthanc", path=SEARCH) and shutil.which("storescu")),
        reason="no PACS here: apt-get install orthanc orthanc-dicomweb dcmtk",
    ),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Start one; its DICOM port, and the address of its DICOMweb service."""
    port, http = free_port(), free_port()
    command = [ROOT / "scripts" / "pacs", tmp_path / "pacs", str(port), str(http)]
    with (tmp_path / "pacs.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{http}/dicom-web"
    try:
        for _ in range(100):
            try:
                requests.get(f"{address}/studies", timeout=5).raise_for_status()
                break
            except requests.ConnectionError:
                assert process.poll() is None, (tmp_path / "pacs.log").read_text()
                time.sleep(0.2)
        yield port, address
    finally:
        process.terminate()
        process.wait(timeout=20)


def send(folder: Path, port: int) -> None:
    command = ["storescu", "--scan-directories", "-aec", "ORTHANC", "127.0.0.1", str(port), folder]
    subprocess.run(command, check=True, capture_output=True)


def test_results_lie_beside_their_series(pacs: tuple[int, str], tmp_path: Path) -> None:
    port, address = pacs
    study = pydicom.uid.generate_uid()
    series = write_phantom(tmp_path / "scanner", study=study)
    send(tmp_path / "scanner", port)
    fetched = read_series(fetch_series(address, study, tmp_path / "fetched"))
    assert {image.SOPInstanceUID for image in fetched} == {
        image.SOPInstanceUID for image in read_series(tmp_path / "scanner")
    }
    maps = write_maps(tmp_path / "scan")
    stored = store_files(address, write_objects(tmp_path / "scan", fetched))

    found = requests.get(f"{address}/studies/{study}/instances", timeout=20).json()
    ours = {each["00080018"]["Value"][0]: each for each in found if each["0020000E"]["Value"][0] != series}
    assert set(ours) == set(stored)
    assert {each["00080060"]["Value"][0] for each in ours.values()} == {"SEG", "OT"}
    again = fetch_series(address, study, tmp_path / "again")  # results are no second series to choose from
    assert len(list(again.iterdir())) == 5
    with pytest.raises(ValueError, match="has files"):
        fetch_series(address, study, again)

    # dcmtk reads what came back: the values are those that were stored
    uid = stored[-1]
    place = f"{address}/studies/{study}/series/{ours[uid]['0020000E']['Value'][0]}/instances/{uid}"
    answer = requests.get(place, headers={"Accept": 'multipart/related; type="application/dicom"'}, timeout=20)
    start = answer.content.index(b"\r\n\r\n") + 4
    (tmp_path / "back.dcm").write_bytes(answer.content[start : answer.content.rindex(b"\r\n--")])
    told = subprocess.run(["dcmdump", "+L", tmp_path / "back.dcm"], check=True, capture_output=True, text=True).stdout
    assert "mutual information of class and draw, in nats" in told
    values = re.search(r"\(7fe0,0008\) OF (\S+)", told)[1].split("\\")
    np.testing.assert_allclose(sorted(map(float, values)), np.sort(maps["mutual_information"], axis=None), rtol=1e-6)


def test_a_study_of_two_series_asks_which(pacs: tuple[int, str], tmp_path: Path) -> None:
    port, address = pacs
    study = pydicom.uid.generate_uid()
    names = [
        write_phantom(tmp_path / "scanner", study=study, SeriesDescription=name) for name in ("lung", "soft tissue")
    ]
    send(tmp_path / "scanner", port)
    with pytest.raises(ValueError, match=r"2 series of images") as refused:
        fetch_series(address, study, tmp_path / "one")
    assert all(name in str(refused.value) for name in names)
    assert len(read_series(fetch_series(address, study, tmp_path / "two", names[1]))) == 5
    with pytest.raises(ValueError, match="0 series of images"):
        fetch_series(address, "1.2.3", tmp_path / "three")


def test_one_command_draws_a_study_and_stores_the_results(
    pacs: tuple[int, str], tiny_options: dict, tmp_path: Path
) -> None:
    port, address = pacs
    study = pydicom.uid.generate_uid()
    write_phantom(tmp_path / "scanner", study=study)
    send(tmp_path / "scanner", port)
    bundle = ROOT / "bundles" / "ssn_segmentation"
    tiny_options = {**tiny_scale("ssn"), **tiny_options}
    tiny_options["data::intensity_range"] = [-1000, 400]
    run("training", config_file=str(bundle / "configs" / "train.yaml"), **tiny_options)  # it has to run, not to be good
    made = {key: value for key, value in tiny_options.items() if key not in ("bundle_root", "dataset_dir")}
    settings = [f"{key}={json.dumps(value)}" for key, value in made.items()]
    model = str(tmp_path / "models" / "model.pt")
    main(["package", str(bundle), str(tmp_path / "tiny_segmentation"), "--model", model, "--set", *settings])
    into = tmp_path / "answers"
    main(["pacs", address, study, str(tmp_path / "tiny_segmentation"), "--into", str(into), "--draws", "2"])
    found = requests.get(f"{address}/studies/{study}/series", timeout=20).json()
    described = sorted(each["0008103E"]["Value"][0] for each in found if "0008103E" in each)
    assert described == [f"monai_flowssn {name}" for name in ("draws", "entropy", "mutual information", "segmentation")]
    draws = [pydicom.dcmread(path) for path in sorted(into.rglob("maps_draw_*.dcm"))]
    assert len(draws) == 2
    assert {str(each.StudyInstanceUID) for each in draws} == {study}


@pytest.mark.skipif(not LABEL.is_dir(), reason="monai-flowssn label has not been run here")
def test_monai_label_draws_the_studies_of_a_pacs(pacs: tuple[int, str], tmp_path: Path) -> None:
    port, address = pacs
    series = write_phantom(tmp_path / "scanner")
    send(tmp_path / "scanner", port)
    app, model = tmp_path / "app", "ssn_segmentation"
    shutil.copytree(ROOT / "bundles" / model, app / "model" / model)
    with serving(app, sys.executable, "-m", "monai_flowssn", "label", app, address) as server:
        assert server.get("draws/studies") == {series: []}
        # as OHIF and the page for browsers ask, and as it is to be stored
        params = {"draws": 2, "label_info": [{"name": "lesion"}]}
        for output, shown in {"image": b"\x1f\x8b", "all": b"--", "json": b"{"}.items():
            place = f"{server.address}/infer/{model}?image={series}&output={output}"
            answer = requests.post(place, data={"params": json.dumps(params)}, timeout=120)
            assert (answer.status_code, answer.content[: len(shown)]) == (200, shown)
        assert answer.json()["shape"] == [18, 20, 5]  # MONAI Label hands on a NIfTI file of the series, rows first
