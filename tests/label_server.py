"""A MONAI Label server of a test, and the requests that clients make."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import h5py
import nibabel
import numpy as np
import requests
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
LABEL = ROOT / ".venv-label"
MODEL = "tiny_segmentation"
AFFINE = np.array([[-0.7, 0, 0, 40], [0, 0.6, 0, -30], [0, 0, 2.5, 5], [0, 0, 0, 1.0]])


def write_studies(folder: Path, lidc: Path) -> None:
    """Write three pictures, a 2-D NIfTI file and a volume."""
    with h5py.File(lidc) as file:
        slices = np.pad(file["test"]["images"][:], ((0, 0), (3, 5), (2, 4)), mode="edge")  # larger than the window
    folder.mkdir()
    for i in range(3):
        Image.fromarray(slices[i]).save(folder / f"picture{i}.png")
    columns = slices.swapaxes(1, 2).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(columns[3], AFFINE), folder / "flat.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(columns[:3], 0, -1), AFFINE), folder / "volume.nii.gz")


class Server:
    """The address of a server, and the requests that clients make."""

    def __init__(self, address: str, process: subprocess.Popen) -> None:
        self.address, self.process = address, process

    def get(self, path: str) -> dict:
        answer = requests.get(f"{self.address}/{path}", timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def infer(self, study: str, kind: str, timeout: float = 120, **params: object) -> requests.Response:
        address, data = f"{self.address}/infer/{MODEL}", {"params": json.dumps(params)}
        return requests.post(address, params={"image": study, "output": kind}, data=data, timeout=timeout)

    def wait(self, path: str) -> dict:
        """Return the state of the newest task once it has ended."""
        for _ in range(240):
            answer = requests.get(f"{self.address}/{path}", timeout=60)
            if answer.status_code == 200 and answer.json().get("status") not in ("SUBMITTED", "RUNNING"):
                return answer.json()
            time.sleep(0.5)
        raise TimeoutError(path)


@contextmanager
def serving(app: Path, *command: str | Path) -> Iterator[Server]:
    """Run a server until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (app / "temporary").mkdir()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MONAI_LABEL_SESSION_PATH": str(app / "sessions"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(app / "dicom"),
        "TMPDIR": str(app / "temporary"),
        "PATH": f"{LABEL}/bin:{os.environ['PATH']}",
    }
    with (app / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                requests.get(f"{address}/info/", timeout=60)
                break
            except requests.ConnectionError:
                assert process.poll() is None, (app / "server.log").read_text()[-3000:]
                time.sleep(0.5)
        yield Server(address, process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def read_nifti(content: bytes, folder: Path) -> nibabel.Nifti1Image:
    path = folder / "answer.nii.gz"
    path.write_bytes(content)
    return nibabel.load(path)


def annotate(server: Server, annotations: dict[str, tuple[str, ...]]) -> None:
    """Save a mask of each image under each of its tags."""
    for image, tags in annotations.items():
        for tag in tags:
            mask = np.zeros((24, 22), np.uint8)
            mask[8:15, 6 : 12 + len(tag)] = 1
            content = BytesIO()
            Image.fromarray(mask).save(content, "png")
            answer = requests.put(
                f"{server.address}/datastore/label?image={image}&tag={tag}",
                files={"label": (f"{image}.png", content.getvalue())},
                timeout=60,
            )
            assert answer.status_code == 200, answer.text
