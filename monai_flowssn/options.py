"""Options with a fixed set of values."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["check_option"]


def check_option(name: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(repr, allowed))}.")
