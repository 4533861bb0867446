"""What a resumed training must have in common with the one that it continues, and what uses a model with its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["OPTIONS_FILE", "KeptOptions", "check_trained_options"]

#: Beside the weights: what a model depends on, by ids; as a config file it can follow a bundle's.
OPTIONS_FILE = "options.yaml"


def check_trained_options(weights: str | Path, options: Mapping[str, Any]) -> None:
    """Refuse options that contradict those that a model was trained with.

    Args:
        weights: file of the model; where no ``options.yaml`` lies beside it, as of older trainings, nothing is compared.
        options: of its use, by id; those that are only here or only there are not compared.

    Raises:
        ValueError: names those that differ, and the file.
    """
    path = Path(weights).with_name(OPTIONS_FILE)
    if not path.is_file():
        return
    trained = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(trained, Mapping):
        raise ValueError(f"{path} holds no options by id; restore it from the training, or remove it.")
    if changed := _changed(trained, options):
        raise ValueError(
            f"{weights} was trained with other options: {'; '.join(changed)}. Leave them out and name {path} as the last config "
            "file; or use the model in spite of it with --force_options True."
        )


def _changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which options of both differ. A tuple is a list, as in a file."""
    return [
        f"--{name} was {was[name]} and is {value}"
        for name, value in map(_as_in_a_file, now.items())
        if name in was and was[name] != value
    ]


def _as_in_a_file(option: tuple[str, Any]) -> tuple[str, Any]:
    name, value = option
    return name, list(value) if isinstance(value, tuple) else value


class KeptOptions:
    """Options that give a training its meaning: save this in its checkpoint, and a resumed one with others is refused.

    A training continued on another fold has seen the patients that it is tested on; one with another intensity range shows the
    network other values for the same tissue.

    Args:
        options: by name; plain values, lists and None.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(map(_as_in_a_file, options.items()))

    def state_dict(self) -> dict[str, Any]:
        """The options."""
        return dict(self.options)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Compare with the options of :meth:`state_dict`.

        Raises:
            ValueError: names those that differ.
        """
        if changed := _changed(state_dict, self.options):
            raise ValueError("; ".join(changed))
