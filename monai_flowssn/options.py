"""Options: those with a fixed set of values, and those that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["check_option", "unread_ids"]

ENTRIES = ("imports", "initialize", "run", "finalize", "training", "evaluating", "inference", "displayable_configs")


def check_option(name: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(repr, allowed))}.")


def unread_ids(config: Mapping[str, Any], entries: Iterable[str] = ENTRIES) -> list[str]:
    """Return the ids of a MONAI config that nothing reads which its workflow runs.

    Args:
        config: as it stands in a file.
        entries: ids that are read from outside: what MONAI runs, and what MONAI Label shows.

    Example:
        >>> unread_ids({"run": ["$@train::trainer.run()"], "lr": 1, "train": {"trainer": "@engine", "old": 2}, "engine": 3})
        ['lr', 'train::old']
    """
    read: set[str] = set()
    open_ids = [entry for entry in entries if entry in config]
    while open_ids:
        name = open_ids.pop()
        if name not in read:
            read.add(name)
            open_ids += [found for text in _texts(_look_up(config, name)) for found in _references(text)]
    return list(_unread("", config, read))


def _unread(above: str, value: Mapping[str, Any], read: set[str]) -> Iterable[str]:
    for key, each in value.items():
        name = f"{above}{key}"
        if name in read:
            continue
        if not any(other.startswith(f"{name}::") for other in read):
            yield name
        elif isinstance(each, Mapping):
            yield from _unread(f"{name}::", each, read)


def _look_up(config: Any, name: str) -> Any:
    for key in name.split("::"):
        if isinstance(config, list) and key.isdigit():
            config = config[int(key)]
        elif isinstance(config, Mapping):
            config = config.get(key)  # what is missing MONAI says better
        else:
            break  # a reference itself, to what is read
    return config


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def _references(text: str) -> list[str]:
    if not text.startswith(("$", "@", "%")):
        return []
    return [name.replace("#", "::") for name in re.findall(r"(?:@|^%)(\w+(?:(?:::|#)\w+)*)", text)]
