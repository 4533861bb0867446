"""What comes from a client is data and never configuration."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from monai.utils import ensure_tuple

__all__ = ["check_option", "check_request", "clicked", "parsed", "refuse_config", "refuse_path"]

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".png", ".tif")


def parsed(params: str) -> dict[str, Any]:
    """Return the parameters of a request.

    Args:
        params: JSON.

    Raises:
        ValueError: if they are no object of plain values.
    """
    try:
        values = json.loads(params or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f'params is no JSON ({error}); give an object, such as {{"draws": 16}}.') from error
    if not isinstance(values, dict):
        raise ValueError(f'params is {values!r}; give an object, such as {{"draws": 16}}.')
    refuse_config(values)
    return values


def check_request(request: Mapping[str, Any], controls: Mapping[str, Any], models: Sequence[str]) -> None:
    """Refuse a request that asks for what a bundle does not have.

    Args:
        request: its parameters.
        controls: of the bundle, by name: its ``displayable_configs``.
        models: names of its files of weights.

    Raises:
        ValueError: names the parameter, what was got, and the choices.
    """
    refuse_config(request)
    offered = {**controls, "model_filename": [None, models, *models], "result_extension": [None, "", *EXTENSIONS]}
    for name, value in request.items():
        if name in offered:
            check_option(name, value, offered[name])
        elif meant := difflib.get_close_matches(name, offered, n=1, cutoff=0.8):
            raise ValueError(f"{name!r} is no parameter of this model; write {meant[0]!r}, or leave it out.")


def clicked(request: Mapping[str, Any]) -> list[int] | None:
    """Return the point of a request, [x, y, z] or [x, y], as clients of MONAI Label send it; None without.

    Args:
        request: with ``foreground``, [[x, y, z]], the voxel indices of one click.

    Raises:
        ValueError: for several points, or what is none.
    """
    sent = {kind: request[kind] for kind in ("foreground", "background") if request.get(kind)}
    if not sent:
        return None
    points = sent.get("foreground")
    one = points[0] if isinstance(points, list) and len(points) == 1 and len(sent) == 1 else None
    if not isinstance(one, list) or len(one) not in (2, 3) or any(type(v) is not int or v < 0 for v in one):
        raise ValueError(f"got {sent}; this model takes one point: give foreground: [[x, y, z]], whole numbers from 0.")
    return one


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
            f"{value!r} is a MONAI config expression; a request and the name of a study hold plain values: leave it out."
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
    elif isinstance(default, int) and (type(value) is not int or not 1 <= value < 2**31):
        raise ValueError(f"{name} is {value!r}; give a whole number from 1.")
