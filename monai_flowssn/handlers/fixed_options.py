"""What a resumed training must have in common with the one that it continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FixedOptions"]


class FixedOptions:
    """Options that give a training its meaning: save this in its checkpoint, and a resumed one with others is refused.

    A training continued on another fold has seen the patients that it is tested on; one with another intensity range shows the
    network other values for the same tissue.

    Args:
        options: by name; plain values, lists and None.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = {
            name: list(value) if isinstance(value, (list, tuple)) else value for name, value in options.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """The options."""
        return dict(self.options)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Compare with the options of :meth:`state_dict`.

        Raises:
            ValueError: names those that differ.
        """
        changed = [
            f"--{name} was {state_dict[name]} and is {value}"
            for name, value in self.options.items()
            if name in state_dict and state_dict[name] != value
        ]
        if changed:
            raise ValueError("; ".join(changed))
