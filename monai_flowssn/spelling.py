"""Whether a value arrives in a configuration as it was written: what Python's words, YAML and MONAI make of text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["check_entry", "check_typed"]

#: Ids that are text whatever the config has for them: places, files and names.
TEXT = re.compile(r"(?:.*(?:_|::))?(?:dir|file|path|root|model|uri|name|checkpoint|image)$")
WORDS = {"true": "True", "yes": "True", "on": "True", "false": "False", "no": "False", "off": "False"}
NOTHING = ("null", "none", "~")
EXPRESSION = ("$", "@", "%")
REFERENCE = re.compile(r"[@%]\w*(?:(?:#|::)+\w+)*")
DECIMAL = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
NUMERIC = re.compile(r"\s*[\[({\d.+-]|nan$|inf$")  # what looks like a list or a number
DECIMALS = re.compile(rf"[\[(]?\s*{DECIMAL}(?:\s*,\s*{DECIMAL})+\s*[\])]?")


def check_typed(name: str, typed: str | None, value: Any, default: Any = None) -> None:
    """Refuse a value of the command line that is not what was typed, and say how to type it.

    ``python -m monai.bundle`` takes words for Python where it can: ``2024_11`` is a number, ``[a]`` a list, ``run#2`` ends before
    the ``#``, and ``false`` is a text, which counts as true. It leaves out None, and MONAI reads ``#`` as ``::`` everywhere.

    Args:
        name: id of the option.
        typed: the word; None for an option without one, which is True, and for a value that comes from a file.
        value: what arrives.
        default: what the config has for it; None if that is unknown.

    Raises:
        ValueError: names the option, what arrives, and the spelling.
    """
    if typed is None and value is None:
        return
    word = str(value) if typed is None else typed
    if isinstance(value, str) and value.startswith(EXPRESSION):
        why = "MONAI reads # as ::" if "#" in REFERENCE.sub("", value) else ""
        fix = _quoted(value.replace("#", "\\x23"))
    elif "#" in word:
        why = "a word of Python ends at #, and MONAI reads # as ::"
        fix = _quoted(str(_expression(value if "#" in str(value) else word)))
    elif value is None or value == "":
        why, fix = "MONAI leaves it out" if value is None else "that is no value", _quoted("$None")
    else:
        why, fix = _other_kind(word, value, _kind(name, default), default)
    if why:
        given = f"--{name}" if typed is None else f"--{name} {typed}"
        raise ValueError(f"{given} arrives as {value!r}: {why}; write --{name} {fix}.")


def check_entry(file: str, name: str, value: Any) -> None:
    """Refuse texts of a YAML file that were meant as numbers or hold a ``#``, and names that became numbers.

    Args:
        file: for the message.
        name: id of the entry.
        value: as it was read, nested as it may be.

    Raises:
        ValueError: names the file, the entry, and the spelling.
    """
    if name.split("::")[-1].startswith("_"):  # MONAI's own, such as _desc_
        return
    if isinstance(value, (Mapping, list)):
        for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
            check_entry(file, f"{name}::{key}", each)
    elif fix := _entry(name, value):
        kind = "text" if isinstance(value, str) else "number"
        raise ValueError(f"{file}: {name} is the {kind} {value!r}; write {fix}.")


def _entry(name: str, value: Any) -> str:
    if not isinstance(value, str):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return f"it in quotes, such as '{value}'" if number and TEXT.match(name) else ""
    if value.startswith(EXPRESSION):
        return value.replace("#", "\\x23") if "#" in REFERENCE.sub("", value) else ""
    if "#" in value:
        return f"{_expression(value)}, because MONAI reads # as ::"
    if DECIMALS.fullmatch(value):
        return f"[{value.strip('[]() ')}] for numbers"
    if not TEXT.match(name) and re.fullmatch(DECIMAL, value) and isinstance(yaml.safe_load(value), str):
        return f"{yaml.safe_dump(float(value)).split()[0]} for a number"
    return "null for nothing" if value == "None" else ""


def _kind(name: str, default: Any) -> str:
    if TEXT.match(name) or (isinstance(default, str) and not default.startswith(EXPRESSION)):
        return "a text"
    if isinstance(default, bool):
        return "True or False"
    if isinstance(default, (int, float)):
        return "a number"
    return "a list" if isinstance(default, list) else ""


def _other_kind(word: str, value: Any, kind: str, default: Any) -> tuple[str, str]:
    """Return why a value is not of a kind, and how to write it; nothing where it is. Of no kind, what reads two ways is not."""
    of_kind = (f"it has to be {kind}", _quoted(str(default or [64, 64]) if kind == "a list" else str(default)))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    plain = isinstance(value, str) and word == value  # a text that was typed without quotes
    quoted = isinstance(value, str) and word[:1] in ("'", '"')
    nothing, whether = plain and word.lower() in NOTHING, plain and word.lower() in WORDS
    if (nothing and (kind != "a text" or default is None)) or (whether and kind != "a text"):
        return "it is a text to Python", WORDS.get(word.lower(), _quoted("$None"))
    if kind == "a text":
        names = isinstance(value, (list, tuple)) and "'" in word and all(isinstance(each, str) for each in value)
        return ("", "") if plain or quoted or names else (of_kind[0], _quoted(repr(word)))
    odd = isinstance(value, str) and not quoted and (not plain or NUMERIC.match(word))
    if kind == "a list":
        return of_kind if number or isinstance(value, bool) or odd else ("", "")
    if (kind == "a number" and not number) or (kind == "True or False" and not isinstance(value, (bool, int))):
        return of_kind
    if not kind and (odd or (number and not re.fullmatch(DECIMAL, word.strip()))):
        return "it reads two ways", f"{_quoted('[64, 64]') if odd else value}, or {_quoted(repr(word))} for a text"
    return "", ""


def _expression(value: Any) -> Any:
    """Return what MONAI evaluates to a text, or to a list of texts, that holds ``#``."""
    if isinstance(value, str):
        return "$" + repr(value).replace("#", "\\x23") if "#" in value else value
    return [_expression(each) for each in value]


def _quoted(word: str) -> str:
    """Return a word as a shell takes it."""
    return shlex.quote(word) if re.search(r'["`\\!]$|["`!]|\\\\|\$\w', word) or word.isalnum() else f'"{word}"'
