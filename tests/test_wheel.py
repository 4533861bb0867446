"""The wheel alone, in an empty folder: what an installed package has and does."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages
from tiny_scales import tiny_scale

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ("__pycache__", "runs", "*.ckpt")  # what use leaves in a checkout


def test_setup_cfg_lists_every_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    assert listed - {"monai_flowssn.bundles", "monai_flowssn.configs"} == set(
        find_packages(str(ROOT), include=["monai_flowssn*"])
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(*LOCAL)
    for name in ("bundles", "configs", "monai_flowssn"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monai_flowssn", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_carries_bundles_and_configs(installed: Path) -> None:
    for name in ("bundles", "configs"):
        assert files(installed / "monai_flowssn" / name) == files(ROOT / name)


def test_it_carries_the_page_for_browsers(installed: Path) -> None:
    for name in ("page.html", "page.js"):
        assert (installed / "monai_flowssn" / "label" / name).is_file()


def files(folder: Path) -> set[Path]:
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not any(path.match(f"{local}/*") or path.match(local) for local in LOCAL)}


def test_a_bundle_of_it_trains_from_an_empty_folder(installed: Path, tiny_options: dict, tmp_path: Path) -> None:
    told = run(installed, tmp_path, "list")
    assert "  flowssn_continuous " in told.stdout
    options = [
        text for name, value in {**tiny_scale("ssn"), **tiny_options}.items() for text in (f"--{name}", str(value))
    ]
    done = run(installed, tmp_path, "train", "ssn", "lidc", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{installed}/monai_flowssn/bundles/ssn_segmentation/configs/train.yaml" in done.stderr.splitlines()[0]
    assert (tmp_path / "models" / "model.pt").is_file()
