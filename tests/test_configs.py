"""The files of configs/ and bundles/: in sync, short, and without anything that nothing reads."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, verify_metadata, verify_net_in_out
from tiny_scales import VARIANTS

from monai_flowssn.options import unread_ids

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/recipe.yaml"))
METHODS = ROOT / "configs" / "methods"

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns about itself


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_rendered_files_are_in_sync(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/render_bundles.py", "--into", tmp_path], check=True)
    rendered = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    shipped = {path.relative_to(ROOT / "bundles"): path.read_text() for path in (ROOT / "bundles").glob("*/configs/*")}
    assert rendered == shipped, "run scripts/render_bundles.py"
    assert len(rendered) == 7 * len(BUNDLES)


def test_metadata_and_network_verify(bundle: Path) -> None:
    metadata = str(bundle / "configs" / "metadata.json")
    verify_metadata(meta_file=metadata, filepath=str(ROOT / "configs" / "metadata_schema.json"))
    verify_net_in_out("network_def", meta_file=metadata, config_file=str(bundle / "configs" / "inference.yaml"))


def test_the_smallest_size_of_the_metadata_is_one_that_the_network_takes(bundle: Path) -> None:
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.yaml"))
    shape = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    size = [int(str(edge).removesuffix("*n")) for edge in shape["spatial_shape"]]
    if "steps" in config["network_def"]:
        config["network_def"]["steps"] = 2
    network = config.get_parsed_content("network_def").eval()
    assert network(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("scale", ["paper", "laptop_3d"])
def test_every_workflow_takes_every_scale(bundle: Path, scale: str, tmp_path: Path) -> None:
    """And reads every number of it somewhere."""
    path = METHODS / bundle.name.removesuffix("_segmentation") / f"{scale}.yaml"
    unread = []
    for file in ("train", "evaluate", "inference"):
        parser = ConfigParser()
        parser.read_config([str(bundle / "configs" / f"{file}.yaml"), str(path)])
        size = parser.get_parsed_content("spatial_size")
        assert size == ([128, 128] if scale == "paper" else [48, 48, 16])
        with torch.device("meta"):
            parser.get_parsed_content("network_def")
        unread.append(set(unread_ids({key: value for key, value in parser.get().items() if key != "_meta_"})))
    assert set.intersection(*unread) == set()
    numbers = ConfigParser.load_config_file(path)
    network = [name for name in numbers if name.startswith("network_def::")]
    for name in network:  # an argument that the network does not have is refused by it
        assert name.rpartition("::")[2] in str(parser["network_def"])


def test_every_id_is_read(bundle: Path) -> None:
    for file in ("train", "evaluate", "inference"):
        assert unread_ids(ConfigParser.load_config_file(bundle / "configs" / f"{file}.yaml")) == [], file


def test_the_configs_stay_short(bundle: Path) -> None:
    """The network's own references are as many as its parts need, and not counted; MONAI's spleen bundle has 30 in all."""
    for file, lines, ids, expressions, references in (
        ("train", 150, 30, 20, 41),
        ("evaluate", 125, 27, 20, 31),
        ("inference", 120, 30, 20, 25),
    ):
        path = bundle / "configs" / f"{file}.yaml"
        config = ConfigParser.load_config_file(path)
        assert len(path.read_text().splitlines()) <= lines
        assert len(config) <= ids
        assert str(config).count("'$") + str(config).count('"$') <= expressions
        assert str(config).count("'@") - str(config["network_def"]).count("'@") <= references


def test_every_method_file_is_in_a_bundle_or_a_variant() -> None:
    methods = {bundle.name.removesuffix("_segmentation") for bundle in BUNDLES}
    scales = {"model", "tiny", "laptop", "laptop_3d", "paper", "paper_refuge"}
    files = {f"{path.parent.name}/{path.stem}" for path in METHODS.glob("*/*.yaml") if path.stem not in scales}
    assert {path.name for path in METHODS.iterdir()} == methods
    others = {"p2sam/sam", "mose/weighted"}  # one needs a package that tests do not, one is of evaluations alone
    assert files == {*VARIANTS, *others}


def test_a_number_that_no_workflow_reads_is_not_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "render_bundles.py"))
    merge = script["merge"]
    monkeypatch.setitem(script["render"].__globals__, "merge", lambda names: {**merge(names), "train_draws": 64})
    with pytest.raises(SystemExit, match="no workflow reads train_draws"):
        script["render"](ROOT / "bundles" / "prob_unet_segmentation", tmp_path)
