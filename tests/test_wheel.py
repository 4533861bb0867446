"""The wheel in a new environment: what an installed package has, and the README's commands from an empty folder."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from setuptools import find_packages

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
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, and the packages of this one, whose download would take minutes."""
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
    made = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    pip.insert(3, f"--python={made / 'bin' / 'python'}")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    (packages(made) / "required.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def packages(environment: Path) -> Path:
    (folder,) = environment.glob("lib/*/site-packages")
    return folder


def call(environment: Path, folder: Path, command: str) -> str:
    """Run a command of the README with the programs of an environment; return what it prints."""
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
    variables = {**clean, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, command + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_it_carries_bundles_and_configs(environment: Path) -> None:
    for name in ("bundles", "configs"):
        assert files(packages(environment) / "monai_flowssn" / name) == files(ROOT / name)


def test_it_carries_the_page_for_browsers(environment: Path) -> None:
    for name in ("page.html", "page.js"):
        assert (packages(environment) / "monai_flowssn" / "label" / name).is_file()


def files(folder: Path) -> set[Path]:
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not any(path.match(f"{local}/*") or path.match(local) for local in LOCAL)}


def write_data(folder: Path) -> None:
    """Write what the README speaks of: a slice, and a datalist with a rater who did not annotate every case."""
    generator = np.random.default_rng(0)
    image = nibabel.Nifti1Image(generator.normal(0, 100, (200, 160)).astype(np.float32), np.eye(4))
    nibabel.save(image, folder / "slice.nii.gz")
    entries = []
    for i in range(12):
        for name in ("ct", "a", "b", "c"):
            (folder / "my_data" / name).mkdir(parents=True, exist_ok=True)
            picture = generator.integers(0, 255, (64, 64)) if name == "ct" else 255 * (generator.random((64, 64)) < 0.2)
            Image.fromarray(picture.astype(np.uint8)).save(folder / "my_data" / name / f"{i}.png")
        label = [f"a/{i}.png", f"b/{i}.png" if i % 2 else None, f"c/{i}.png"]
        entries.append({"image": f"ct/{i}.png", "label": label, "patient": f"p{i}"})
    groups = {"training": entries[:6], "validation": entries[6:9], "test": entries[9:]}
    (folder / "my_data" / "datalist.json").write_text(json.dumps(groups))


def test_the_commands_of_the_readme_run_from_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [re.sub(r"\s+# .*", "", line) for line in lines if line.startswith("monai-flowssn")]
    assert " ".join(command.split()[1] for command in commands) == "infer check train evaluate infer package label"
    write_data(tmp_path)
    for command in commands[:-1]:  # MONAI Label needs an environment of its own, and has tests of its own
        short = command.replace("--time_limit 3600", "--time_limit 3").replace("--draws 100", "--draws 2")
        call(environment, tmp_path, short)
    bundle = packages(environment) / "monai_flowssn" / "bundles" / "ssn_segmentation"
    assert not (bundle / "runs").exists()  # nothing is written into the package
    for made in ("out/slice/slice_mean.nii.gz", "my_run/models/model.pt", "my_run/runs/evaluate/per_case.csv"):
        assert (tmp_path / made).is_file(), made
    assert len(list((tmp_path / "my_run" / "runs" / "inference").iterdir())) == 3

    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "app" / "model")
    (tmp_path / "load.py").write_text("""from monai.bundle import download, load
import monai_flowssn, torch
from pathlib import Path
download(url=Path("zipped.zip").resolve().as_uri(), name="my_segmentation", bundle_dir="elsewhere", progress=False)
model = load("my_segmentation", bundle_dir="elsewhere", workflow_type="inference", device="cpu")
print(monai_flowssn.__file__, tuple(model.eval().sample(torch.zeros(1, 1, 64, 64), 3).shape))
""")
    told = call(environment, tmp_path, "python load.py")
    assert f"{packages(environment)}/monai_flowssn/__init__.py (1, 3, 2, 64, 64)" in told
