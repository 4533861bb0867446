"""Bundles of one's own: complete, verified by MONAI, and loaded by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser
from tiny_scales import tiny_scale

from monai_flowssn import __version__
from monai_flowssn.cli import main
from monai_flowssn.cli.exports import _trace, export
from monai_flowssn.shipped import load_shipped

ROOT = Path(__file__).resolve().parent.parent.parent
BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/recipe.yaml"))
SCHEMA = str(ROOT / "configs" / "metadata_schema.json")

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI and torch warn about themselves


def settings(options: dict) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in options.items()]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_any_method_is_handed_on(bundle: Path, tmp_path: Path) -> None:
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.yaml"))
    config.update(tiny_scale(bundle.name))
    network = config.get_parsed_content("network_def").eval()
    torch.manual_seed(0)
    for parameter in network.parameters():  # some begin at 0, and their draws do not differ
        torch.nn.init.normal_(parameter, std=0.1)
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    into = tmp_path / "made_segmentation"
    packing = ["package", str(bundle), str(into), "--model", str(tmp_path / "models" / "model.pt"), "--set"]
    main([*packing, *settings(tiny_scale(bundle.name))])

    meta = str(into / "configs" / "metadata.json")
    monai.bundle.verify_metadata(meta_file=meta, filepath=SCHEMA)
    monai.bundle.verify_net_in_out("network_def", meta_file=meta, config_file=str(into / "configs" / "inference.json"))
    loaded = monai.bundle.load(into.name, bundle_dir=tmp_path, workflow_type="inference", device="cpu")
    for model in (loaded.eval(), load_shipped(into)):
        torch.testing.assert_close(dict(model.state_dict()), dict(network.state_dict()), rtol=0, atol=0)
    image = torch.randn(1, 1, 16, 16)
    _trace(network, image, tmp_path / "model.ts")  # raises where it is not what the network is
    assert torch.jit.load(tmp_path / "model.ts")(image).shape == (1, 2, 16, 16)


def test_a_bundle_tells_of_its_training_and_is_loaded_from_a_zip(tiny_options: dict, tmp_path: Path) -> None:
    bundle = ROOT / "bundles" / "ssn_segmentation"
    options = {**tiny_scale("ssn"), **tiny_options}
    for workflow, file in (("training", "train"), ("evaluating", "evaluate")):
        few = {"validate::inferer::n": 2} if file == "train" else {}
        monai.bundle.run(workflow, config_file=str(bundle / "configs" / f"{file}.yaml"), **options, **few)
    used = {name: value for name, value in options.items() if name != "bundle_root"}
    packing = ["package", "ssn", "--model", str(tmp_path / "models" / "model.pt"), "--set", *settings(used)]
    made = tmp_path / "parts" / "my_segmentation"
    main([*packing[:2], str(made), *packing[2:]])

    about = json.loads((made / "configs" / "metadata.json").read_text())
    assert about["required_packages_version"]["monai_flowssn"] == __version__
    assert about["data_source"].startswith("lidc (train: 6 cases of 3 patients, up to 4 raters; val: 6 cases")
    assert about["network_data_format"]["inputs"]["image"]["spatial_shape"] == [16, 16]
    assert about["exports"] == {"TorchScript": "not tried", "ONNX": "not tried"}
    with (tmp_path / "runs" / "evaluate" / "per_case.csv").open() as file:
        column = file.readline().strip().split(",").index("test_ged_v_n4")
        values = [float(line.split(",")[column]) for line in file]
    assert about["eval_metrics"]["test_ged_v_n4"] == pytest.approx(sum(values) / 6, abs=1e-4)
    card = (made / "docs" / "README.md").read_text()
    assert "6 cases of 3 patients." in card
    assert "| 3 steps, 0 minutes |" in card
    assert "CC BY 3.0" in (made / "docs" / "data_license.txt").read_text()
    assert (made / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

    url = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", made.parent)).as_uri()
    elsewhere = tmp_path / "elsewhere"
    monai.bundle.download(url=url, name="my_segmentation", bundle_dir=str(elsewhere), progress=False)
    model = monai.bundle.load("my_segmentation", bundle_dir=elsewhere, workflow_type="inference", device="cpu")
    expected = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    torch.testing.assert_close(dict(model.state_dict()), dict(expected), rtol=0, atol=0)

    # packed again, after a training that was not evaluated, with another licence
    (tmp_path / "models" / "model.pt").touch()
    (tmp_path / "license.txt").write_text("Ours.")
    again = tmp_path / "again_segmentation"
    main([*packing[:2], str(again), "--data_license", str(tmp_path / "license.txt"), *packing[2:]])
    assert json.loads((again / "configs" / "metadata.json").read_text())["eval_metrics"] == {}
    assert "Not evaluated" in (again / "docs" / "README.md").read_text()
    assert (again / "docs" / "data_license.txt").read_text() == "Ours."


class Fickle(torch.nn.Module):
    """A network that tracing changes: it looks at its input."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.softmax(1) if image.sum() == 0 else image.flip(1).softmax(1)


def test_an_export_that_is_not_the_network_is_not_kept(tmp_path: Path) -> None:
    told = export(Fickle().eval(), torch.zeros(1, 2, 4, 4), tmp_path / "exports")
    assert told["TorchScript"].startswith("none (AssertionError")
    assert not (tmp_path / "exports" / "model.ts").exists()


def test_an_export_that_works_is_kept(tmp_path: Path) -> None:
    told = export(torch.nn.Softmax(dim=1).eval(), torch.zeros(1, 2, 4, 4), tmp_path / "exports")
    assert told["TorchScript"] == "exports/model.ts"
    assert (tmp_path / "exports" / "model.ts").is_file()
    assert told["ONNX"] == "exports/model.onnx" or told["ONNX"].startswith("not tried (No module")
