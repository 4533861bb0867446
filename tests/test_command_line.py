"""Options whose name is misspelt, and errors that end with their cause."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from monai_flowssn.command_line import check_command_line

CONFIGS = Path(__file__).parents[1] / "bundles/ssn_segmentation/configs"
FILES = f"['{CONFIGS}/evaluate.yaml','{CONFIGS.parents[2]}/configs/profiles/laptop.yaml']"
COMMAND = ["/site-packages/monai/bundle/__main__.py", "run", "evaluating", "--config_file", FILES]


@pytest.fixture(autouse=True)
def own_hook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.mark.parametrize(
    "options",
    [
        ["--lr", "0.1", "--seed=3"],
        ["--resume"],  # of training
        ["--network_def::rank", "5", "--train#trainer#max_epochs", "2"],
        ["--max-epochs", "2"],  # Fire makes it max_epochs
        ["--logging_file", "False", "--run_id", "evaluating"],  # MONAI's own
        ["--mine", "0.1", "--lr", "$@mine / 2"],
    ],
)
def test_ids_of_the_configs_and_what_they_refer_to_are_options(options):
    check_command_line([*COMMAND, *options])


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        (["--max_epoch", "2"], "max_epochs"),
        (["--time_limt=60"], "time_limit"),
        (["--network_deff::rank", "5"], "network_def"),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest(options, nearest):
    with pytest.raises(ValueError, match=f"would change nothing.*evaluate.yaml.*Did you mean --{nearest}"):
        check_command_line([*COMMAND, *options])


def test_options_of_an_arguments_file_count(tmp_path):
    file = tmp_path / "arguments.yaml"
    file.write_text(yaml.safe_dump({"config_file": str(CONFIGS / "train.yaml"), "seeed": 3}), encoding="utf-8")
    with pytest.raises(ValueError, match="--seeed 3 .*--seed"):
        check_command_line([*COMMAND[:3], "--args_file", str(file)])


def test_other_commands_are_left_alone():
    check_command_line(["pytest", "run", "--max_epoch", "2"])
    check_command_line([COMMAND[0], "verify_metadata", "--max_epoch", "2"])


def test_a_workflow_ends_before_it_begins(tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(CONFIGS / "train.yaml")]
    options = ["--bundle_root", str(tmp_path / "run"), "--max_epoch", "2"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[-1].startswith("The cause: --max_epoch 2 would change nothing")
    assert not (tmp_path / "run").exists()
