"""What MONAI's command line leaves open: options that nobody reads or that read as something else, and causes far up."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import signature
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import fire.parser
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run
from monai.utils import ensure_tuple

from monai_flowssn.spelling import check_entry, check_typed

__all__ = ["check_command_line"]

WORKFLOWS = ("train", "evaluate", "inference")


def check_command_line(arguments: Sequence[str] | None = None) -> None:
    """Refuse options of `python -m monai.bundle run` that change nothing or something else, and end its errors with their cause.

    Known are the ids of the config files, and of the other workflows of the same bundle, so that training, evaluation and
    inference take the same options; and an id of your own that another option refers to (`--mine 3 --lr "@mine"`). Ids
    below another (`--network_def::stepz 5`) are left to what they are an argument of. Values have to arrive as they were written
    (:mod:`~monai_flowssn.spelling`), those of the config files too.

    Args:
        arguments: of the command line, its first one included; those of this process by default. Nothing is done for other
            commands.

    Raises:
        ValueError: names the option, and the id that is nearest to it or the right spelling.
    """
    arguments = sys.argv if arguments is None else arguments
    if Path(arguments[0]).parts[-3:] != ("monai", "bundle", "__main__.py") or "run" not in arguments[1:2]:
        return
    sys.excepthook = _tell_cause_last
    given = _options(arguments[2:])
    if "args_file" in given:
        file = given["args_file"].value
        given = {**{name: _Given(None, each) for name, each in ConfigParser.load_config_file(file).items()}, **given}
    if "config_file" not in given:
        return
    files = [Path(file) for file in ensure_tuple(given["config_file"].value)]
    known = {name for call in (run, create_workflow, ConfigWorkflow.__init__) for name in signature(call).parameters}
    siblings = [
        file.with_name(f"{other}{file.suffix}") for file in files if file.stem in WORKFLOWS for other in WORKFLOWS
    ]
    configs = [ConfigParser.load_config_files(list(map(str, files)))]
    for file in filter(Path.is_file, [*files, *siblings]):
        config = ConfigParser.load_config_file(file)
        for name, value in config.items():
            check_entry(str(file), name, value)
        configs.append(config)
    for option, (typed, value) in given.items():
        if option in known:
            continue
        if not any(_takes(option, each) for each in configs) and not _referred(option, given):
            raise ValueError(
                f"--{option} {value} would change nothing: no id {option!r} in {', '.join(map(str, files))}."
                + _advice(option, known.union(*configs), configs[0])
            )
        defaults = (_default(option, each) for each in configs)
        check_typed(option, typed, value, next((each for each in defaults if each is not None), None))


class _Given(NamedTuple):
    """The word of an option, None where there is none, and what Fire makes of it."""

    typed: str | None
    value: Any


def _takes(option: str, config: Any) -> bool:
    """Whether a config has an id, or what it stands below takes arguments."""
    for name in _names(option):
        if not isinstance(config, Mapping) or "_target_" in config:
            return True
        if name not in config:
            return False
        config = config[name]
    return True


def _default(option: str, config: Any) -> Any:
    for name in _names(option):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _names(option: str) -> list[str]:
    return re.split("::|#", option)


def _referred(option: str, given: Mapping[str, _Given]) -> bool:
    """Whether another option refers to this one, which is then of the user's own."""
    return any(re.search(rf"@{re.escape(_names(option)[0])}(?!\w)", str(other.value)) for other in given.values())


def _advice(option: str, known: Iterable[str], config: Mapping[str, Any]) -> str:
    """Return what to give instead of an option that does not exist, and what the network has."""
    below = list(_plain_ids(config))
    same = sorted((found for found in below if _names(found)[-1] == option), key=len)
    nearest = same or difflib.get_close_matches(option, [*known, *below], n=1)
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


def _options(arguments: Sequence[str]) -> dict[str, _Given]:
    """Names and values as Fire reads them: --name value, --name=value, or --name for true.

    Raises:
        ValueError: for a word that belongs to no option, which would become ``init_id`` and leave out the initialisation.
    """
    options: dict[str, _Given] = {}
    name, before, places = None, "", 0
    for argument in takewhile(lambda each: each != "--", arguments):  # what follows is for Fire itself
        flag = re.match(r"(?:--([A-Za-z_][^=]*)|-([A-Za-z])(?==|$))(?:=(.*))?$", argument, re.DOTALL)
        if flag:
            name = (flag[1] or flag[2]).replace("-", "_")
            options[name] = _given(flag[3])
        elif name is not None:
            options[name] = _given(argument)
            name = None
        else:
            places += 1
            if options and places + ("run_id" in options) > 1:
                last = next(reversed(options))
                raise ValueError(f"--{last} {before} {argument}: a value is one word; quote it as a whole.")
        before = argument
    return options


def _given(word: str | None) -> _Given:
    return _Given(word, True if word is None else fire.parser.DefaultParseValue(word))


def _tell_cause_last(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    cause = error
    # MONAI's own are RuntimeErrors that name the id that was being built
    while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if cause is not error:
        sys.stderr.write(f"\nThe cause: {type(cause).__name__}: {cause}\n")
