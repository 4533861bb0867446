"""Start a MONAI Label server on this machine, with every bundle in APP/model as a model.

    monai-flowssn package ssn app/model/my_segmentation --model my_run/models/model.pt --overlay my_data.yaml
    monai-flowssn label app STUDIES [--port 8000] [other options of `monailabel start_server`]

STUDIES is a folder of images, or the address of a DICOMweb service. http://127.0.0.1:8000/draws/ is a page for browsers. MONAI
Label needs numpy < 2, so it has an environment of its own, made on first use (Python 3.10 or 3.11; about 3 GB) with the
versions of PyTorch and MONAI that are installed here. Other machines reach the server only with `--host 0.0.0.0`, and then
without a password. Settings by `--conf NAME VALUE`: `max_voxels` bounds the draws of a request times the voxels of its image
(2e9), `waiting` how many requests may wait (16), `seconds` how long one may take (600), and `origins` admits web pages of
other addresses.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from importlib.metadata import requires, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PASSES_OPTIONS = True  # to monailabel
MAIN = "from monai_flowssn.label.app import StochasticSegmentation  # noqa: F401\n"
HERE = ("--host", "127.0.0.1", "--conf", "zoo_source", "ngc", "--conf", "sam2", "false")  # nothing is downloaded
SAME = ("torch", "monai", "itk", "mlflow", "torchdiffeq", "pytorch-ignite")
LABEL = (
    "monailabel==0.8.5",
    "pydicom<3",
    "pynetdicom<3",
    "dicomweb-client[gcp]<0.60",
    # with a DICOMweb store it makes DICOM-SEG by this tool, and downloads it from GitHub where it is missing
    'dcmqi>=1.5; sys_platform == "linux" and platform_machine == "x86_64"',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """App and studies."""
    parser.add_argument("app", type=Path)
    parser.add_argument("studies")
    parser.add_argument(
        "--environment", type=Path, default=Path(".venv-label"), help="of MONAI Label; made here by default"
    )


def run(arguments: argparse.Namespace) -> None:
    """Make what is missing, and serve until a signal ends it."""
    app = arguments.app.resolve()
    if not list(app.glob("model/*/configs/inference.*")):
        raise ValueError(f"there is no bundle in {app}/model; make one of a trained model with monai-flowssn package.")
    if (app / "main.py").exists() and (app / "main.py").read_text() != MAIN:
        raise ValueError(f"{app}/main.py is that of another app; give another folder.")
    (app / "main.py").write_text(MAIN)
    environment = make(arguments.environment.resolve())
    remote = arguments.studies.startswith(("http://", "https://"))
    studies = arguments.studies if remote else Path(arguments.studies).resolve()
    command = ["monailabel", "start_server", "--app", app, "--studies", studies, *HERE]
    with tempfile.TemporaryDirectory(prefix="monai_flowssn-") as folder:  # what requests leave behind, however they end
        path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        server = subprocess.Popen([*command, *arguments.options], env={**os.environ, "PATH": path, "TMPDIR": folder})
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda each, _: server.send_signal(each))
        status = server.wait()
    sys.exit(128 - status if status < 0 else status)


def make(environment: Path) -> Path:
    """Return the environment of MONAI Label, made or brought up to date where that is needed."""
    ours = [each for each in requires("monai_flowssn") or () if "extra ==" not in each]
    torch = version("torch").split("+")[0]
    vision = f"torchvision==0.{int(torch.split('.')[1]) + 15}.{torch.split('.')[2]}"  # 0.28.0 goes with torch 2.13.0
    pins = [f"{name}=={version(name).split('+')[0]}" for name in SAME] + [vision, "numpy<2"]
    stamp = environment / f".installed-{zlib.crc32(repr((ours, pins, LABEL)).encode()):08x}"
    if not stamp.exists():
        print(f"Installing MONAI Label into {environment} (some minutes, about 3 GB) ...", flush=True)
        _install(environment, ours, pins)
        stamp.touch()
    link = _library(environment) / PACKAGE.name  # this very package, so that both sides are of one version
    if not link.is_symlink() or link.resolve() != PACKAGE:
        link.unlink(missing_ok=True)
        link.symlink_to(PACKAGE)
    return environment


def _install(environment: Path, ours: list[str], pins: list[str]) -> None:
    if not (3, 10) <= sys.version_info < (3, 12):
        raise ValueError(
            "MONAI Label 0.8.5 needs Python 3.10 or 3.11; install monai_flowssn into one of these, and start it there."
        )
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    constraints = environment / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n")

    def pip(*arguments: str, **variables: str) -> None:
        command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *arguments]
        subprocess.run(command, check=True, env={**os.environ, **variables})

    pip("--constraint", str(constraints), "torch")
    pip("setuptools", "wheel", "ninja")
    # a dependency that the server imports and we switch off: without its own dependencies, and without compiling for CUDA
    pip("--no-build-isolation", "--no-deps", "sam2==1.1.0", SAM2_BUILD_CUDA="0")
    pip("--constraint", str(constraints), *LABEL, *ours)
    if subprocess.run([python, "-c", "import torchvision"], check=False, capture_output=True).returncode:
        operators = (PACKAGE / "label" / "torchvision_operators.py").read_text()
        (_library(environment) / "sitecustomize.py").write_text(operators)
        subprocess.run([python, "-c", "import torchvision"], check=True)


def _library(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
