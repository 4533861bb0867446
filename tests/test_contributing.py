"""CONTRIBUTING.md, followed to the letter: its method and its data set, from their files to a training."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

import monai_flowssn.data
import monai_flowssn.segmenters
from monai_flowssn.data import check_loader
from monai_flowssn.options import unread_ids
from monai_flowssn.segmenters import check_segmenter

ROOT = Path(__file__).resolve().parent.parent
FILES = dict(
    re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)```$", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE)
)
METHOD = {path: text for path, text in FILES.items() if "offset" in path}

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns about itself


def module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what CONTRIBUTING.md adds to, with its files, and its import lines as they act."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for package, name, what in (("segmenters", "offset", "OffsetNet"), ("data", "toy_set", "toy")):
        full = f"monai_flowssn.{package}.{name}"
        monkeypatch.setitem(sys.modules, full, None)  # put back afterwards
        made = module(full, tmp_path / "monai_flowssn" / package / f"{name}.py")
        monkeypatch.setattr(sys.modules[f"monai_flowssn.{package}"], what, getattr(made, what), raising=False)
    arrays = np.random.default_rng(0)
    masks = np.zeros((12, 2, 16, 16), np.uint8)
    masks[:, :, 4:10, 4:10] = 1
    np.savez(tmp_path / "toy.npz", images=arrays.integers(0, 200, (12, 16, 16)).astype(np.uint8), masks=masks)
    return tmp_path


@pytest.fixture
def bundle(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = runpy.run_path(str(ROOT / "scripts" / "render_bundles.py"))
    monkeypatch.setitem(script["render"].__globals__, "CONFIGS", written / "configs")
    bundle = written / "bundles" / "offset_segmentation"
    script["render"](bundle, bundle / "configs")
    return bundle


def test_a_method_costs_at_most_sixty_lines() -> None:
    assert len(METHOD) == 7
    assert sum(len(text.splitlines()) for text in METHOD.values()) + 1 <= 60  # and the import


def test_the_method_passes_the_contract_of_all_methods(bundle: Path, written: Path) -> None:
    tiny = written / "configs" / "methods" / "offset" / "tiny.yaml"

    def make() -> monai_flowssn.segmenters.StochasticSegmenter:
        config = ConfigParser()
        config.read_config([bundle / "configs" / "inference.yaml", tiny])
        return config.get_parsed_content("network_def")

    check_segmenter(make)


def test_every_id_of_its_bundle_is_read(bundle: Path) -> None:
    for file in ("train", "evaluate", "inference"):
        config = ConfigParser.load_config_file(bundle / "configs" / f"{file}.yaml")
        assert unread_ids(config) == []


def test_the_loader_passes_the_contract_of_all_loaders(written: Path) -> None:
    check_loader(monai_flowssn.data.toy, written)  # type: ignore[attr-defined]


def test_they_train_together(bundle: Path, written: Path) -> None:
    files = [
        bundle / "configs" / "train.yaml",
        written / "configs/data/toy.yaml",
        written / "configs/methods/offset/tiny.yaml",
    ]
    options = {"bundle_root": str(bundle), "dataset_dir": str(written), "max_epochs": 1, "batch_size": 4}
    flow = ConfigWorkflow(list(map(str, files)), workflow_type="train", logging_file=False, **options)
    flow.initialize()
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    assert (bundle / "models" / "model.pt").is_file()
