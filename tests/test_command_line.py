"""Options whose name is misspelt, and errors that end with their cause."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from monai_flowssn.command_line import _tell_cause_last, check_command_line

CONFIGS = Path(__file__).parents[1] / "bundles/ssn_segmentation/configs"
FILES = f"['{CONFIGS}/evaluate.yaml','{CONFIGS.parents[2]}/configs/methods/ssn/paper.yaml']"
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
        ["--workflow_type", "train", "--properties_path", "own.json"],
        ["--mine", "0.1", "--lr", "$@mine / 2"],
        ["--lr", "-inf", "--seed", "-1", "--", "--trace"],  # the last is Fire's
    ],
)
def test_ids_of_the_configs_and_what_they_refer_to_are_options(options):
    check_command_line([*COMMAND, *options])


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        (["--max_epoch", "2"], "max_epochs"),
        (["--time_limt=60"], "time_limit"),
        (["--max_epoch", "2", "--lr", "@max_epochs"], "max_epochs"),
        (["--network_deff::rank", "5"], "network_def"),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest(options, nearest):
    with pytest.raises(ValueError, match=f"would change nothing.*evaluate.yaml.*Did you mean --{nearest}"):
        check_command_line([*COMMAND, *options])


@pytest.mark.parametrize(
    ("bundle", "option", "advice"),
    [
        ("ssn", "train_draws", "Did you mean --network_def::train_draws?"),
        ("ssn", "crops", "Did you mean --data::crops?"),
        ("prob_unet", "train_draws", "network of prob_unet has .*network_def::features::channels"),
    ],
)
def test_an_option_that_this_method_does_not_have_is_refused_with_those_it_has(bundle, option, advice):
    file = CONFIGS.parents[1] / f"{bundle}_segmentation/configs/train.yaml"
    with pytest.raises(ValueError, match=f"--{option} 64 would change nothing.*{advice}"):
        check_command_line([*COMMAND[:3], "--config_file", str(file), f"--{option}", "64"])


def test_options_of_an_arguments_file_count(tmp_path):
    file = tmp_path / "arguments.yaml"
    file.write_text(yaml.safe_dump({"config_file": str(CONFIGS / "train.yaml"), "seeed": 3}), encoding="utf-8")
    with pytest.raises(ValueError, match="--seeed 3 .*--seed"):
        check_command_line([*COMMAND[:3], "--args_file", str(file)])


def test_other_files_beside_the_configs_do_not_matter(tmp_path):
    shutil.copy(CONFIGS / "inference.yaml", tmp_path)
    shutil.copy(CONFIGS / "train.yaml", tmp_path)
    (tmp_path / "notes.yaml").write_text("{{ a template }}: [", encoding="utf-8")
    (tmp_path / "own.yaml").write_text("mine: 3", encoding="utf-8")
    files = f"['{tmp_path}/own.yaml','{tmp_path}/inference.yaml']"
    check_command_line([*COMMAND[:3], "--config_file", files, "--mine", "4", "--resume", "True"])


def test_the_cause_is_ours_and_not_what_it_came_from(capsys):
    try:
        try:
            try:
                {}["fixed"]
            except KeyError as error:
                raise ValueError("the checkpoint does not fit; choose another folder.") from error
        except ValueError as error:
            raise RuntimeError("Failed to evaluate ConfigExpression") from error
    except RuntimeError as error:
        _tell_cause_last(type(error), error, error.__traceback__)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "The cause: ValueError: the checkpoint does not fit; choose another folder."


def test_other_commands_are_left_alone():
    check_command_line(["pytest", "run", "--max_epoch", "2"])
    check_command_line([COMMAND[0], "verify_metadata", "--max_epoch", "2"])


def test_a_workflow_ends_before_it_begins(tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(CONFIGS / "train.yaml")]
    options = ["--bundle_root", str(tmp_path / "run"), "--max_epoch", "2"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[-1].startswith("The cause: ValueError: --max_epoch 2 would change nothing")
    assert not (tmp_path / "run").exists()
