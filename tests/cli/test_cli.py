"""The command line: what it lists, and what its short spellings stand for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_flowssn.cli import COMMANDS, main
from monai_flowssn.cli.shipped import bundle, folder, overlay
from monai_flowssn.cli.workflows import command

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    assert f"monai-flowssn {name}" in capsys.readouterr().out


def test_the_list_names_what_is_shipped(capsys: pytest.CaptureFixture) -> None:
    main(["list"])
    told = capsys.readouterr().out
    for path in (ROOT / "bundles").iterdir():
        assert f"  {path.name.removesuffix('_segmentation')} " in told
    for path in (ROOT / "configs" / "data").glob("*.yaml"):
        assert f"  {path.stem} " in told


def test_a_short_spelling_is_a_command_of_monai(capsys: pytest.CaptureFixture) -> None:
    made = command("train", "ssn", ["lidc_contours", str(ROOT / "configs" / "multi_gpu_train.yaml")], ["--lr", "0.001"])
    assert made[1:6] == ["-m", "monai.bundle", "run", "training", "--config_file"]
    assert made[-2:] == ["--lr", "0.001"]
    files = made[6].strip("[]'").split("','")
    assert [Path(file).relative_to(ROOT).as_posix() for file in files] == [
        "bundles/ssn_segmentation/configs/train.yaml",
        "configs/data/lidc_contours.yaml",
        "configs/multi_gpu_train.yaml",
    ]
    ConfigParser().read_config(files)
    main(["infer", "ssn", "--show", "--draws", "3", "--limit", "-1"])  # options may stand before or after
    told = capsys.readouterr().err
    assert told.startswith("python -m monai.bundle run inference --config_file \"['")
    weights = ROOT / "bundles" / "ssn_segmentation" / "models" / "model.pt"
    assert told.endswith(f"inference.yaml']\" --draws 3 --limit -1 --model_path {weights}\n")


def test_the_weights_of_a_bundle_are_those_that_nobody_else_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--model_path" in command("evaluate", "ssn", [], [])
    assert "--model_path" not in command("train", "ssn", [], [])
    assert "--model_path" not in command("infer", "unet", [], [])  # which has none
    assert "--model_path" not in command("infer", "ssn", [], ["--bundle_root", "my_run"])
    assert command("infer", "ssn", [], ["--model_path=a.pt"])[-1] == "--model_path=a.pt"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").touch()
    assert "--model_path" not in command("infer", "ssn", [], [])


def test_names_that_there_are_not() -> None:
    for arguments, said in (
        (["train", "sss", "--show"], "'sss' is no bundle"),
        (["train", "ssn", "nothing", "--show"], "neither a config file nor one of ours"),
    ):
        with pytest.raises(SystemExit, match=said):
            main(arguments)
    for arguments in (["trian"], ["list", "--all"]):
        with pytest.raises(SystemExit) as refused:
            main(arguments)
        assert refused.value.code == 2


def test_a_method_s_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data/lidc", "methods/ssn/laptop", "methods/unet/laptop"):
        path = tmp_path / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr("monai_flowssn.cli.shipped.folder", lambda name: tmp_path / name)
    assert overlay("laptop", "ssn").parent.name == "ssn"
    assert overlay("lidc", "ssn").parent.name == "data"
    with pytest.raises(ValueError, match="one of several"):
        overlay("laptop", "mose")


def test_a_copy_is_a_bundle(tmp_path: Path) -> None:
    main(["copy", "unet", str(tmp_path / "mine")])
    assert bundle(str(tmp_path / "mine")) == tmp_path / "mine"
    shipped = folder("bundles") / "unet_segmentation" / "configs" / "train.yaml"
    assert (tmp_path / "mine" / "configs" / "train.yaml").read_bytes() == shipped.read_bytes()
    with pytest.raises(SystemExit, match="is there already"):
        main(["copy", "unet", str(tmp_path / "mine")])


def test_a_reader_that_goes_is_no_error() -> None:
    shell = f"{sys.executable} -m monai_flowssn list | head -1"
    told = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("bundles\n", "")
