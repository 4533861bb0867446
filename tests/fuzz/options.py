"""Options of the command line and entries of config files, as people write them: what arrives is what was meant, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fire.parser
import yaml
from fuzz.judge import Input
from fuzz.pictures import Rng
from monai.bundle import ConfigParser

from monai_flowssn.command_line import check_command_line
from monai_flowssn.workflows import Data

CONFIGS = Path(__file__).parents[2] / "bundles/ssn_segmentation/configs"
WORKFLOWS = ("train", "evaluate", "inference")
ODD = ["#", "[", "]", "'", '"', " ", "::", "é", "=", "%", "@", "$", "{", ",", "(", "\\", "-", "_", ".", "&", "~"]
PLACES = {
    "train": ["bundle_root", "dataset_dir", "init_model", "mlflow::experiment_name", "ckpt_dir"],
    "evaluate": ["model_path", "output_dir", "mlflow::tracking_uri", "split"],
    "inference": ["image", "output_dir", "model_path"],
}
NUMBERS = ["lr", "max_epochs", "batch_size", "weight_decay", "network_def::rank", "finish"]


def resolved(value: Any) -> Any:
    """What MONAI makes of a value in a config."""
    parser = ConfigParser({})
    parser["x"] = value
    return parser.get_parsed_content("x")


def _same(found: Any, meant: Any) -> bool:
    if isinstance(found, (list, tuple)) or isinstance(meant, tuple):
        return isinstance(found, (list, tuple)) and isinstance(meant, tuple) and list(found) == list(meant)
    if isinstance(meant, bool):
        return found is meant or (type(found) is int and bool(found) == meant)
    return type(found) in (type(meant), *((int, float) if isinstance(meant, float) else ())) and found == meant


def _arrives(word: str | None) -> Any:
    if word is not None and ("#" in word or word in ("None", "")):
        return ValueError("cut, or left out")
    try:
        return resolved(True if word is None else fire.parser.DefaultParseValue(word))
    except Exception as error:  # MONAI evaluates it, and cannot
        return error


def typed(workflow: str, name: str, words: Sequence[str], meant: Any) -> Input:
    """An option in words, and what it was meant to be: if that does not arrive, it has to be refused."""
    files = str(CONFIGS / f"{workflow}.yaml")
    command = ["/monai/bundle/__main__.py", "run", "training", "--config_file", files, f"--{name}", *words]
    found = _arrives(words[0] if words else None)
    sound = len(words) < 2 and _same(found, meant)

    def call() -> Any:
        check_command_line(command)
        if name.startswith("data::"):
            _facts(name, found)
        return found

    return Input(call, (lambda value: _same(value, meant)) if sound else None, (name.rpartition("::")[2],))


def _facts(name: str, value: Any) -> None:
    facts = {"channels": 1, "num_classes": 2, "raters": 3, "intensity_range": None}
    Data(name="x", cases=lambda **asked: [], **{**facts, name.removeprefix("data::"): value})


def _name(rng: Rng) -> str:
    kind = rng.integers(5)
    if kind == 0:
        return str(
            rng.choice(
                [
                    "2024",
                    "2024_11",
                    "1e5",
                    "0x1f",
                    "True",
                    "None",
                    "[CT]",
                    "{a}",
                    "(b)",
                    "-3",
                    "1.",
                    "007",
                ]
            )
        )
    parts = [str(rng.choice(["run", "CT", "2", "my data", "fold3", "a"])) for _ in range(rng.integers(2, 4))]
    return str(rng.choice(ODD)).join(parts) if kind < 4 else str(rng.choice(ODD)) + "".join(parts)


def place(rng: Rng, folder: Path) -> Input:
    workflow = str(rng.choice(WORKFLOWS))
    name = _name(rng)
    return typed(workflow, str(rng.choice(PLACES[workflow])), [name], name)


def number(rng: Rng, folder: Path) -> Input:
    value = float(rng.choice([0.001, 3, 250, 1e-5, 0.5, 1e3]))
    forms = [repr(value), f"{value:e}", f"{value:g}", f"+{value:g}", f" {value:g}", f"{value:g}s", f"{value:g}".replace(".", ","),
             f"[{value:g}]", f"{value:g},", "nan", "", f"{value:g}#3"]  # fmt: skip
    word = str(rng.choice(forms))
    name = str(rng.choice(NUMBERS))
    return typed("train", name, [word], value)


def whether(rng: Rng, folder: Path) -> Input:
    word, meant = [("true", True), ("True", True), ("false", False), ("False", False), ("no", False), ("off", False), ("0",
    False),
                   ("1", True), ("null", False), ("None", False), ("FALSE", False), ("n", False), ("'False'",
                   False)][rng.integers(13)]  # fmt: skip
    name = str(rng.choice(["resume", "lr_to_zero"]))
    return typed("train", name, [word], meant) if rng.random() < 0.9 else typed("train", name, [], True)


def nothing(rng: Rng, folder: Path) -> Input:
    name = str(rng.choice(["time_limit", "init_model", "data::intensity_range", "val_limit", "early_stop_patience"]))
    word = str(rng.choice(["None", "none", "~", "", "$None", "NULL"]))
    return typed("train", name, [word], None)


def pair(rng: Rng, folder: Path) -> Input:
    low, high = sorted(rng.choice(2000, 2, replace=False) - 1000)
    if rng.random() < 0.4:
        low, high = 64, 96
    name = str(rng.choice(["data::intensity_range", "spatial_size", "data::context"]))
    words = [
        [f"[{low}, {high}]"], [f"{low},{high}"], [f"({low},{high})"], [f"[{low} {high}]"], [f"{low}", f"{high}"],
        [f"[{low},", f"{high}]"],
        [f"{low}x{high}"], [f"{low} {high}"], [f"{low}"], [f"[{low},{high}"], [f"{low}:{high}"], [f"{low},", f"{high}"],
    ][rng.integers(12)]  # fmt: skip
    return typed("train", name, words, (int(low), int(high)))


def misspelt(rng: Rng, folder: Path) -> Input:
    workflow = str(rng.choice(WORKFLOWS))
    config = ConfigParser.load_config_file(CONFIGS / f"{workflow}.yaml")
    name = str(rng.choice([key for key in config if key.isidentifier() and len(key) > 3]))
    i = int(rng.integers(1, len(name)))
    spelt = [name[:i] + name[i + 1 :], name[:i] + name[i] + name[i:], name.upper(), f"validate::{name}x", name + "s"][
        rng.integers(5)
    ]
    known = {key for each in WORKFLOWS for key in ConfigParser.load_config_file(CONFIGS / f"{each}.yaml")}
    command = [
        "/monai/bundle/__main__.py",
        "run",
        "--config_file",
        str(CONFIGS / f"{workflow}.yaml"),
        f"--{spelt}",
        "3",
    ]
    right = (lambda value: True) if spelt in known else None
    return Input(lambda: check_command_line(command), right, (spelt,))


def entry(rng: Rng, folder: Path) -> Input:
    """A line of an overlay in YAML."""
    text, meant = [
        ("lr: 1e-4", 1e-4), ("lr: 1.0e-4", 1e-4), ("lr: 3E5", 3e5), ("lr: 1e4", 1e4), ("lr: .001", 0.001), ("lr: '0.001'",
        "0.001"),
        ("bundle_root: run#2", "run#2"), ("bundle_root: 2024", "2024"), ("bundle_root: '2024'", "2024"), ("ckpt_dir: a::b",
        "a::b"),
        ("dataset_dir: '[CT] é'", "[CT] é"), ("spatial_size: 64,96", (64, 96)), ("spatial_size: (64, 96)", (64, 96)),
        ("spatial_size: [64, 96]", (64, 96)), ("time_limit: None", None), ("time_limit: null", None), ("resume: no", False),
        ("mlflow::experiment_name: 2024_11", "2024_11"), ("data::intensity_range: -1000,400", (-1000, 400)),
        ("data::intensity_range: [-1000, 400]", (-1000, 400)), ("mlflow::run: 'a #b'", "a #b"),
    ][rng.integers(21)]  # fmt: skip
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    ((name, value),) = yaml.safe_load(text).items()
    files = f"['{CONFIGS}/train.yaml','{folder}/mine.yaml']"
    found = resolved(value)

    def call() -> Any:
        check_command_line(["/monai/bundle/__main__.py", "run", "--config_file", files])
        return found

    return Input(call, (lambda each: _same(each, meant)) if _same(found, meant) else None, ("mine.yaml", name))


KINDS: dict[str, Callable[[Rng, Path], Input]] = {
    f"option: {make.__name__}": make for make in (place, number, whether, nothing, pair, misspelt, entry)
}
