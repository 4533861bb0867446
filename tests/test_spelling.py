"""Values that arrive as they were written, or are refused with a spelling that does arrive."""

import re
import shlex

import fire.parser
import pytest
import yaml
from monai.bundle import ConfigParser

from monai_flowssn.spelling import check_entry, check_typed


def arrives(word):
    """What a workflow sees of a word of the command line."""
    parser = ConfigParser({})
    parser["x"] = fire.parser.DefaultParseValue(word)
    return parser.get_parsed_content("x")


@pytest.mark.parametrize(
    ("name", "typed", "default"),
    [
        ("bundle_root", "a::b", "."),
        ("bundle_root", "[CT] scans é", "."),
        ("dataset_dir", "2024-11", "$@bundle_root"),
        ("image", "['a','c']", None),
        ("data::intensity_range", "-1000,400", [0, 255]),
        ("data::intensity_range", "[-1000, 400]", None),
        ("presets", "kohl", []),
        ("resume", None, False),
        ("resume", "False", False),
        ("lr", "1e-4", 0.1),
        ("lr", "$@warmup#lr / 2", 0.1),
        ("seed", "1_000", 0),
        ("time_limit", "3600", None),
        ("split", "none", "test"),
        ("mine", "siemens", None),
    ],
)
def test_what_arrives_as_it_was_typed(name, typed, default):
    check_typed(name, typed, True if typed is None else fire.parser.DefaultParseValue(typed), default)


@pytest.mark.parametrize(
    ("name", "typed", "default", "meant"),
    [
        ("bundle_root", "run#2", ".", "run#2"),
        ("bundle_root", "it's #2", ".", "it's #2"),
        ("image", "['a#b','c']", None, ["a#b", "c"]),
        ("bundle_root", "2024", ".", "2024"),
        ("bundle_root", "[CT]", ".", "[CT]"),
        ("bundle_root", "True", ".", "True"),
        ("mlflow::experiment_name", "2024_11", "x", "2024_11"),
        ("model_path", "1e5", "$@ckpt_dir", "1e5"),
        ("data::intensity_range", "None", [0, 255], None),
        ("init_model", "None", None, None),
        ("time_limit", "null", None, None),
        ("resume", "false", False, False),
        ("lr_to_zero", "true", True, True),
        ("x", "$'a#b'", None, "a#b"),
        ("time_limit", "3_600", None, 3600),
    ],
)
def test_what_does_not_is_refused_with_a_spelling_that_does(name, typed, default, meant):
    with pytest.raises(ValueError, match=f"--{name} .* arrives as ") as caught:
        check_typed(name, typed, fire.parser.DefaultParseValue(typed), default)
    spelled = re.search(rf"write --{name} (.*?)(?:, or .*)?\.$", str(caught.value), re.DOTALL)[1]
    (word,) = shlex.split(spelled)
    assert arrives(word) == meant
    check_typed(name, word, fire.parser.DefaultParseValue(word), default)


@pytest.mark.parametrize(
    ("name", "typed", "default", "said"),
    [
        ("data::intensity_range", "[-1000,", [0, 255], r"has to be a list; write .* \"\[0, 255\]\""),
        ("window", "[64 64]", None, "reads two ways"),
        ("time_limit", "3h", None, "reads two ways"),
        ("init_model", "", None, "no value"),
        ("lr", "[0.1]", 0.1, "has to be a number"),
        ("bundle_root", "(b)", ".", "has to be a text"),
        ("spatial_size", "64", [64, 64], "has to be a list"),
        ("lr", "abc", 0.1, "has to be a number"),
        ("lr", "nan", 0.1, "has to be a number"),
        ("max_epochs", None, 5, "has to be a number"),
        ("compile", "maybe", False, "has to be True or False"),
        ("bundle_root", None, ".", "has to be a text"),
    ],
)
def test_another_kind_is_refused(name, typed, default, said):
    with pytest.raises(ValueError, match=said):
        check_typed(name, typed, True if typed is None else fire.parser.DefaultParseValue(typed), default)


@pytest.mark.parametrize(
    "text", ["lr: 1.0e-4", "lr: '2024'", "out_dir: a::b", "x: $@a#b", "_desc_: 'no. #1'", "x: [a, null]"]
)
def test_entries_of_a_file_that_are_what_they_say(text):
    for name, value in yaml.safe_load(text).items():
        check_entry("my.yaml", name, value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("lr: 1e-4", 1e-4),
        ("lr: 3E5", 3e5),
        ("bundle_root: run#2", "run#2"),
        ("x: {y: [$'a#b']}", "a#b"),
        ("x: -1000,400", [-1000, 400]),
        ("x: (64, 64)", [64, 64]),
        ("ckpt_dir: 2024", "2024"),
        ("x: None", None),
    ],
)
def test_other_entries_are_refused_with_a_spelling_that_arrives(text, meant):
    ((name, value),) = yaml.safe_load(text).items()
    with pytest.raises(ValueError, match=rf"my\.yaml: {name}.* is the .*; write ") as caught:
        check_entry("my.yaml", name, value)
    spelled = re.search(r"; write (?:it in quotes, such as )?(.*?)(?: for .*|, because .*)?\.$", str(caught.value))[1]
    parser = ConfigParser({"x": yaml.safe_load(spelled)})
    assert parser.get_parsed_content("x") == meant
