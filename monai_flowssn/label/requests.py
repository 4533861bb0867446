"""What comes from a client is data and never configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.utils import ensure_tuple

__all__ = ["check_option", "refuse_config", "refuse_path"]


def refuse_config(value: Any) -> None:
    """Refuse what MONAI's config parser would evaluate.

    MONAI Label writes values of a request into the bundle's config, where a string that begins with ``$`` is Python, ``@`` and
    ``%`` are references, and ``_target_`` is a call.

    Args:
        value: of a request, nested as it may be.

    Raises:
        ValueError: if there is such a string or key anywhere in it.
    """
    if isinstance(value, Mapping):
        refuse_config(list(value))
        refuse_config(list(value.values()))
    elif isinstance(value, (list, tuple, set)):
        for each in value:
            refuse_config(each)
    elif isinstance(value, str) and (value.lstrip().startswith(("$", "@", "%")) or value == "_target_"):
        raise ValueError(
            f"{value!r} is a MONAI config expression; a request and the name of a study hold plain values."
        )


def refuse_path(name: Any) -> None:
    """Refuse the name of a study, tag or model that is a path.

    Args:
        name: a name, a sequence of names, or None.

    Raises:
        ValueError: if a name would lead out of its folder.
    """
    for each in ensure_tuple(name):
        if each and (str(each).startswith(".") or any(sign in str(each) for sign in "/\\\0")):
            raise ValueError(f"{each!r} is no plain name; names of studies, tags and models have no folders in them.")


def check_option(name: str, value: Any, default: Any) -> None:
    """Refuse the value of an option that is not of the kind of its default.

    Args:
        name: of the option, such as ``draws``.
        value: of the request.
        default: what the model offers: a number to count with, or a sequence to choose from.

    Raises:
        ValueError: for another kind.

    >>> check_option("draws", 4, 16)
    >>> check_option("draws", True, 16)
    Traceback (most recent call last):
    ValueError: draws is True; give a whole number from 1.
    >>> check_option("output", "mean", ["segmentation", "draw"])
    Traceback (most recent call last):
    ValueError: output is 'mean'; choose one of 'segmentation', 'draw'.
    """
    if isinstance(default, (list, tuple)):
        if value != default and value not in default:  # clients send the whole sequence for "as it is"
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(repr, default))}.")
    elif isinstance(default, int) and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name} is {value!r}; give a whole number from 1.")
