"""What comes from a client is data and never configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.utils import ensure_tuple

__all__ = ["refuse_config", "refuse_path"]


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
