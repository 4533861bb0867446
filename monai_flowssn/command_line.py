"""What MONAI's command line leaves open: options that nobody reads, and errors whose cause stands far up."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import signature
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

import fire.parser
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run
from monai.utils import ensure_tuple

__all__ = ["check_command_line"]

WORKFLOWS = ("train", "evaluate", "inference")


def check_command_line(arguments: Sequence[str] | None = None) -> None:
    """Refuse options of `python -m monai.bundle run` whose name stands in no config file, and end its errors with their cause.

    Known are the ids of the config files, and of the other workflows of the same bundle, so that training, evaluation and
    inference take the same options; and an id of your own that another option refers to (`--mine 3 --lr "@mine"`). Ids
    below another (`--network_def::stepz 5`) are left to what they are an argument of.

    Args:
        arguments: of the command line, its first one included; those of this process by default. Nothing is done for other
            commands.

    Raises:
        ValueError: names the option and the id that is nearest to it.
    """
    arguments = sys.argv if arguments is None else arguments
    if Path(arguments[0]).parts[-3:] != ("monai", "bundle", "__main__.py") or "run" not in arguments[1:2]:
        return
    sys.excepthook = _tell_cause_last
    given = _options(arguments[2:])
    if "args_file" in given:
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    if "config_file" not in given:
        return
    files = [Path(file) for file in ensure_tuple(given["config_file"])]
    known = {name for call in (run, create_workflow, ConfigWorkflow.__init__) for name in signature(call).parameters}
    siblings = [
        file.with_name(f"{other}{file.suffix}") for file in files if file.stem in WORKFLOWS for other in WORKFLOWS
    ]
    for file in filter(Path.is_file, [*files, *siblings]):
        known |= ConfigParser.load_config_file(file).keys()
    for option, value in given.items():
        name = re.split("::|#", option)[0]
        if name in known or any(re.search(rf"@{re.escape(name)}(?!\w)", str(other)) for other in given.values()):
            continue
        raise ValueError(
            f"--{option} {value} would change nothing: no id {name!r} in {', '.join(map(str, files))}."
            + _advice(name, known, ConfigParser.load_config_files(list(map(str, files))))
        )


def _advice(name: str, known: Iterable[str], config: Mapping[str, Any]) -> str:
    """Return what to give instead of an option that does not exist, and what the network has."""
    below = list(_plain_ids(config))
    same = sorted((found for found in below if found.split("::")[-1] == name), key=len)
    nearest = same or difflib.get_close_matches(name, known, n=1)
    advice = f" Did you mean --{nearest[0]}?" if nearest else " Take one of their ids, or leave it out."
    numbers = [found for found in below if found.startswith("network_def::")]
    return advice + (f" The network of {config.get('method_name')} has {', '.join(numbers)}." if numbers else "")


def _plain_ids(value: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the ids of all values that are neither taken from elsewhere nor computed."""
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from _plain_ids(each, f"{above}{name}::")
        elif not name.startswith("_") and not str(each).startswith(("$", "@", "%")):
            yield f"{above}{name}"


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """Names and values as Fire reads them: --name value, --name=value, or --name for true."""
    options: dict[str, Any] = {}
    name = None
    for argument in takewhile(lambda each: each != "--", arguments):  # what follows is for Fire itself
        flag = re.match(r"(?:--([A-Za-z_][^=]*)|-([A-Za-z])(?==|$))(?:=(.*))?$", argument, re.DOTALL)
        if flag:
            name = (flag[1] or flag[2]).replace("-", "_")
            options[name] = True if flag[3] is None else fire.parser.DefaultParseValue(flag[3])
        elif name is not None:
            options[name] = fire.parser.DefaultParseValue(argument)
            name = None
    return options


def _tell_cause_last(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    cause = error
    # MONAI's own are RuntimeErrors that name the id that was being built
    while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if cause is not error:
        sys.stderr.write(f"\nThe cause: {type(cause).__name__}: {cause}\n")
