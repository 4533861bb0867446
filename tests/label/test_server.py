"""A real MONAI Label server, where its environment exists: ``monai-flowssn label`` makes it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import itk
import numpy as np
import pytest
import requests
from label_server import AFFINE, LABEL, MODEL, ROOT, Server, annotate, read_nifti, serving, write_studies
from monai.bundle import run
from PIL import Image
from tiny_scales import tiny_scale

pytestmark = [
    pytest.mark.skipif(not LABEL.is_dir(), reason="monai-flowssn label has not been run here"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def app(tiny_options: dict, tiny_lidc: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with studies and a trained model, of whole images or of their centre."""
    app = tmp_path / "app"
    bundle = ROOT / "bundles" / "ssn_segmentation"
    tiny_options = {**tiny_scale("ssn"), **tiny_options, "data::crops": request.param, "data::jitter": 0}
    run("training", config_file=str(bundle / "configs" / "train.yaml"), **tiny_options)
    settings = {key: value for key, value in tiny_options.items() if key not in ("bundle_root", "dataset_dir")}
    command = [sys.executable, "-m", "monai_flowssn", "package", bundle, app / "model" / MODEL]
    command += ["--model", tmp_path / "models" / "model.pt", "--set"]
    command += [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    subprocess.run(command, cwd=ROOT, check=True)
    write_studies(app / "studies", tiny_lidc)
    return app


@pytest.mark.parametrize("app", ["anywhere"], indirect=True)
def test_our_app_answers_scores_chooses_and_learns(app: Path, tmp_path: Path) -> None:
    with serving(app, sys.executable, "-m", "monai_flowssn", "label", app, app / "studies") as server:
        info = server.get("info/")
        assert set(info["models"]) == set(info["trainers"]) == {MODEL}
        assert {"most_uncertain", "first", "random"} == set(info["strategies"])
        assert info["models"][MODEL]["config"]["draws"] == 3
        check_answers(server, tmp_path)
        check_wrong_requests(server)
        check_patience(server)
        check_active_learning(server)
        check_batch(server)
        check_training(server, app)
        check_uploads(server, app)
        check_origins(server)
        check_end(server, app)


@pytest.mark.parametrize("app", ["centre"], indirect=True)
def test_the_stock_app_answers_and_learns(app: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from monai_flowssn.label.raters import RaterTrainTask; RaterTrainTask(sys.argv[1], {})({}, None)"
    )
    command = [LABEL / "bin" / "python", "-c", code, app / "model" / MODEL]
    ours = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ours.returncode == 1
    assert (
        "--set data::crops=anywhere" in ours.stderr
    )  # our training has masks of whole images, and refuses to look at centres alone
    shutil.copytree(LABEL / "monailabel" / "sample-apps" / "monaibundle", app, dirs_exist_ok=True)
    command = ["monailabel", "start_server", "--app", app, "--studies", app / "studies", "--host", "127.0.0.1"]
    command += ["--conf", "models", MODEL, "--conf", "zoo_source", "ngc", "--conf", "sam2", "false"]
    with serving(app, *command) as server:
        for output in ("segmentation", "draw", "entropy", "mutual_information"):
            answer = server.infer("picture0", "image", output=output)
            assert np.array(Image.open(BytesIO(answer.content))).shape == (24, 22)
            volume = read_nifti(server.infer("volume", "image", output=output).content, tmp_path)
            assert volume.shape == (22, 24, 3)
            np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
        assert len(server.infer("flat", "json", draws=5).json()["classes"]["1"]["per_draw"]) == 5
        annotate(server, {"picture0": ("final",), "picture1": ("final",)})
        model = app / "model" / MODEL / "models" / "model.pt"
        before = model.read_bytes()
        # its training knows neither crops nor raters: it takes images as the bundle's preprocessing leaves them
        request = {"max_epochs": 1, "val_split": 0.5}
        assert requests.post(f"{server.address}/train/{MODEL}", json=request, timeout=60).status_code == 200
        task = server.wait("train/")
        assert task["status"] == "DONE", task["details"]
        assert model.read_bytes() != before


def check_answers(server: Server, folder: Path) -> None:
    answer = server.infer("picture0", "json", draws=5).json()
    assert len(answer["classes"]["1"]["per_draw"]) == 5
    assert answer["shape"] == [22, 24]
    assert answer["uncertainty"]["entropy"] is None or answer["uncertainty"]["entropy"] >= 0
    for output in ("segmentation", "draw", "entropy", "mutual_information"):
        picture = np.array(Image.open(BytesIO(server.infer("picture0", "image", output=output).content)))
        assert picture.shape == (24, 22)
        assert picture.dtype == np.uint8
        for name, shape in {"flat": (22, 24, 1), "volume": (22, 24, 3)}.items():
            image = read_nifti(server.infer(name, "image", output=output).content, folder)
            assert image.shape == shape
            np.testing.assert_allclose(image.affine[:, :2], AFFINE[:, :2], atol=1e-5)
            np.testing.assert_allclose(image.affine[:, 3], AFFINE[:, 3], atol=1e-5)
            if output in ("segmentation", "draw"):
                assert set(np.unique(image.get_fdata())) <= {0, 1}

    # the draws are those whose volumes the answer tells
    per_draw = server.infer("volume", "json").json()["classes"]["1"]["per_draw"]
    path = folder / "draws.seg.nrrd"
    path.write_bytes(server.infer("volume", "image", output="draws").content)
    draws = itk.array_from_image(itk.imread(str(path), itk.Vector[itk.F, 3]))
    assert draws.shape == (3, 24, 22, 3)  # (z, y, x, N)
    np.testing.assert_allclose(draws.sum(axis=(0, 1, 2)) * 0.7 * 0.6 * 2.5, per_draw, rtol=1e-4)

    for program in ({"draws": "$__import__('os').abort()"}, {"output": {"_target_": "os.abort"}}, {"device": "$1"}):
        refused = server.infer("picture0", "json", **program)
        assert refused.status_code == 400, program
        assert "config expression" in refused.text
    assert server.infer("nowhere", "json").status_code == 400
    one = server.infer("volume", "image", output="draws", draws=1)
    assert read_nifti(one.content, folder).shape == (22, 24, 3)
    wrong = server.infer("picture0", "image", output="draw", draw=9)
    assert wrong.status_code == 400
    assert "draw is 9; 3 were made: choose from 1 to 3." in wrong.text


def check_wrong_requests(server: Server) -> None:
    """What is wrong with a request is told at once."""
    server.wait("scoring/")  # begun when the server was
    wrong = [{"draws": draws} for draws in ("x", None, [2], {"a": 1}, 2.5, True, 0, -1)]
    wrong += [
        {"draw": "first"},
        {"output": "mean"},
        {"output": {"a": 1}},
        {"output": None},
        {"model_filename": "other.pt"},
    ]
    wrong += [
        {"device": "tpu"},
        {"device": 3},
        {"result_extension": ".exe"},
        {"foreground": [[1]]},
        {"foreground": 3},
    ]
    for params in wrong:
        refused = server.infer("picture0", "json", **params)
        assert refused.status_code == 400, (params, refused.text)
        assert next(iter(params)) in refused.text, refused.text
    # viewers show a plane as a volume of one slice
    assert server.infer("picture0", "json", foreground=[[1, 2, 0]]).status_code == 200
    limit = server.infer("volume", "json", draws=10**9)
    assert limit.status_code == 400
    assert "1000000000 draws of 22x24x3 are 1.58e+12 voxels, and 2.15e+09 are the limit" in limit.text

    def post(path: str, **more: object) -> requests.Response:
        return requests.post(f"{server.address}/{path}", timeout=60, **more)

    for path in (
        "infer/other?image=picture0",
        "train/other",
        "batch/infer/other",
        "scoring/other",
        "activelearning/other",
    ):
        refused = post(path, json={})
        assert refused.status_code == 400, path
        assert "knows no 'other'; choose one of" in refused.text
    for path in (f"infer/{MODEL}", f"infer/{MODEL}?image=", f"infer/{MODEL}?image=nowhere"):
        assert post(path).status_code == 400, path
    for params in ("[1]", "{"):
        assert post(f"infer/{MODEL}?image=picture0", data={"params": params}).status_code == 400
    for path in (f"train/{MODEL}", f"batch/infer/{MODEL}", "scoring/sample_uncertainty"):
        refused = post(f"{path}?run_sync=true", json={})
        assert (refused.status_code, "run_sync" in refused.text) == (400, True), path
    for size, image in (((22, 20), "picture0"), ((24, 22), "nowhere")):
        content = BytesIO()
        Image.fromarray(np.zeros(size, np.uint8)).save(content, "png")
        address = f"{server.address}/datastore/label?image={image}&tag=final"
        assert requests.put(address, files={"label": ("a.png", content.getvalue())}, timeout=60).status_code == 400
    assert requests.put(address, files={"label": ("a.png", b"no picture")}, timeout=60).status_code == 400
    assert not server.get("datastore/")["label_tags"]


def check_patience(server: Server) -> None:
    """A long drawing holds nobody up but those who wait for one, and ends with its client."""
    address = f"{server.address}/infer/{MODEL}"
    ask = {"params": {"image": "volume", "output": "json"}, "data": {"params": json.dumps({"draws": 10**6})}}
    with pytest.raises(requests.ReadTimeout):
        requests.post(address, timeout=2, **ask)  # of minutes
    assert server.infer("picture0", "json", timeout=30).status_code == 200  # not after those minutes
    with ThreadPoolExecutor(20) as clients:

        def wait(_: int) -> int | None:
            try:
                return requests.post(address, timeout=10, **ask).status_code
            except requests.ReadTimeout:
                return None

        answers = clients.map(wait, range(20))
        time.sleep(1)
        assert requests.get(f"{server.address}/info/", timeout=8).status_code == 200  # while they wait
        assert sorted(map(str, answers)) == 3 * ["503"] + 17 * ["None"]  # one draws, 16 wait


def check_batch(server: Server) -> None:
    answer = requests.post(
        f"{server.address}/batch/infer/{MODEL}?images=unlabeled", timeout=60
    )  # as clients do, without params
    assert answer.status_code == 200
    task = server.wait("batch/infer")
    assert task["status"] == "DONE", task["details"]
    assert server.get("datastore/")["label_tags"] == {"original": 5}


def check_end(server: Server, app: Path) -> None:
    """A signal ends a server that draws and trains within seconds, and nothing is left in the folder of temporary files."""
    label = next((app / "studies" / "labels" / "anna").iterdir())
    label.write_bytes(b"no picture any more")
    assert requests.post(f"{server.address}/train/{MODEL}", json={"max_epochs": 1}, timeout=60).status_code == 200
    task = server.wait("train/")
    assert task["status"] == "ERROR"
    assert task["details"][-1].startswith("The cause: ValueError: Case ")
    assert label.name in task["details"][-1]
    label.unlink()
    requests.post(f"{server.address}/train/{MODEL}", json={"max_epochs": 10**6}, timeout=60)
    with pytest.raises(requests.ReadTimeout):
        server.infer("volume", "json", timeout=2, draws=10**6)
    with ThreadPoolExecutor() as client:
        drawing = client.submit(server.infer, "volume", "json", draws=10**6)
        time.sleep(1)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
        assert time.monotonic() - start < 20  # three seconds where nothing else runs; the training has days left
        assert drawing.exception() or drawing.result().status_code == 503
    assert not list((app / "temporary").iterdir())


def check_uploads(server: Server, app: Path) -> None:
    """Nothing is written outside the studies, and nothing read that is none of them."""
    content = BytesIO()
    Image.fromarray(np.zeros((24, 22), np.uint8)).save(content, "png")

    def upload(kind: str, name: str, field: str, **params: str) -> requests.Response:
        files = {field: (name, content.getvalue())}
        return requests.put(f"{server.address}/datastore/{kind}", params=params, files=files, timeout=60)

    before = sorted(app.parent.rglob("*"))
    assert upload("image", "a.png", "file", image="../escaped").status_code == 400
    assert upload("image", "a.yaml", "file", image="train").status_code == 400
    assert upload("label", "a.png", "label", image="picture0", tag="../../escaped").status_code == 400
    assert sorted(app.parent.rglob("*")) == before
    assert upload("image", "a.png", "file", image="sent").status_code == 200
    assert server.infer("sent", "json").status_code == 200
    assert requests.delete(f"{server.address}/datastore/image?id=sent", timeout=60).status_code == 200
    archive, address = app / "a.tar", f"{server.address}/session/?uncompress=true"
    with tarfile.open(archive, "w") as file:
        file.add(app / "server.log", "../escaped.log")
    assert requests.put(address, files={"files": ("a.tar", archive.read_bytes())}, timeout=60).status_code == 400
    archive.unlink()
    # what a request says about the path of Python is not asked
    program = {"sitecustomize.py": f"open({str(app / 'mark')!r}, 'w')", "other.txt": ""}
    files = [("files", (name, text)) for name, text in program.items()]
    folder = requests.put(f"{server.address}/session/", files=files, timeout=60).json()["session_info"]["image"]
    body = {"bundle_path": folder}
    server.wait("scoring/")  # of the training before
    assert requests.post(f"{server.address}/scoring/sample_uncertainty", json=body, timeout=60).status_code == 200
    server.wait("scoring/")
    assert not (app / "mark").exists()
    elsewhere = app / "elsewhere.png"
    elsewhere.write_bytes(content.getvalue())
    for image in (str(elsewhere), f"{app / 'temporary'}/../{elsewhere}", "README.md", ["picture0"]):
        refused = server.infer("picture0", "json", image=image)
        assert refused.status_code == 400, image
        assert "stud" in refused.text
    for params in ({"model_filename": "../models/model.pt"}, {"result_extension": "/../a.nii"}):
        refused = server.infer("picture0", "json", **params)
        assert refused.status_code == 400, params
        assert f"{next(iter(params))} is " in refused.text  # and the choices follow
    assert server.infer("picture0", "json", label=str(app / "server.log")).status_code == 200  # it is not read
    elsewhere.unlink()


def check_origins(server: Server) -> None:
    """A page of another site that is open in a browser on this machine gets nothing."""
    port = server.address.rsplit(":")[-1]
    for headers, status in [
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": f"example.org:{port}", "Origin": f"http://example.org:{port}"}, 403),
        ({"Origin": server.address}, 200),
    ]:
        assert requests.get(f"{server.address}/info/", headers=headers, timeout=60).status_code == status, headers


def check_active_learning(server: Server) -> None:
    assert server.wait("scoring/")["status"] == "DONE"  # begun when the server was
    objects = server.get("datastore/?output=all")["objects"]
    scores = {name: each["image"]["info"]["sample_uncertainty"]["mutual_information"] for name, each in objects.items()}
    assert len(scores) == 5
    chosen = requests.post(f"{server.address}/activelearning/most_uncertain", json={}, timeout=60).json()
    assert scores[chosen["id"]] == max(scores.values())


def check_training(server: Server, app: Path) -> None:
    annotate(server, {"picture0": ("final", "anna"), "picture1": ("final", "anna"), "picture2": ("final",)})
    assert server.get("datastore/")["label_tags"] == {"original": 5, "final": 3, "anna": 2}
    models = app / "model" / MODEL / "models"
    before = (models / "model.pt").read_bytes()
    program, mark = app / "program.json", app / "mark"
    program.write_text(
        json.dumps({"initialize": [{"_target_": "pathlib.Path.touch", "self": f"$pathlib.Path('{mark}')"}]})
    )
    request = {"max_epochs": 2, "val_split": 0.34, "lr": 0.01, "tracking": str(program), "run_id": "nothing"}
    assert requests.post(f"{server.address}/train/{MODEL}", json=request, timeout=60).status_code == 200
    task = server.wait("train/")
    assert task["status"] == "DONE", task["details"]
    assert (models / "model.pt").read_bytes() != before
    assert [path.read_bytes() for path in models.glob("model_*.pt")] == [before]
    assert not mark.exists()
    manifest = json.loads((app / "model" / MODEL / "runs" / "train" / "manifest.json").read_text())
    groups = manifest["groups"]
    assert groups["train"]["cases"] + groups["val"]["cases"] == 3
    assert groups["train"]["masks"] + groups["val"]["masks"] == 5
    choice = server.get("info/")["models"][MODEL]["config"]["model_filename"]
    assert choice == ["model.pt", *(path.name for path in models.glob("model_*.pt"))]
    for name in choice:
        assert server.infer("picture0", "json", model_filename=name).status_code == 200
    first, second = ((models / name).read_bytes() for name in reversed(choice))
    time.sleep(1)  # kept models are named by the second
    request = {"max_epochs": 1, "val_split": 0.34, "model_filename": choice[1]}
    assert requests.post(f"{server.address}/train/{MODEL}", json=request, timeout=60).status_code == 200
    assert server.wait("train/")["status"] == "DONE"
    assert {path.read_bytes() for path in models.glob("model_*.pt")} == {
        first,
        second,
    }  # also one that others start before
