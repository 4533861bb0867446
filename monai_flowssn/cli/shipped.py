"""List what is shipped: bundles, data sets, and the smaller files that go after them.

    monai-flowssn list

Any of the names below the bundles follows a bundle's: `monai-flowssn train ssn lidc_contours`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

__all__ = ["bundle", "folder", "overlay"]


def folder(name: str) -> Path:
    """Return ``bundles`` or ``configs``: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def bundle(name: str) -> Path:
    """Return a bundle by its name, with or without ``_segmentation``, or by its folder.

    Raises:
        ValueError: if there is none.
    """
    for path in (Path(name), folder("bundles") / name, folder("bundles") / f"{name}_segmentation"):
        if (path / "configs").is_dir():
            return path
    raise ValueError(f"{name!r} is no bundle; give the folder of one, or one of {', '.join(bundles())}.")


def config_file(bundle: Path, workflow: str) -> Path:
    """Return the config of a workflow: YAML in what is shipped, JSON in what `monai-flowssn package` wrote.

    Args:
        bundle: its folder.
        workflow: train, evaluate or inference.
    """
    packaged = bundle / "configs" / f"{workflow}.json"
    return packaged if packaged.is_file() else packaged.with_suffix(".yaml")


def bundles() -> list[str]:
    """Return the names of the bundles, without ``_segmentation``."""
    found = folder("bundles").glob("*/configs/metadata.json")
    return sorted(path.parent.parent.name.removesuffix("_segmentation") for path in found)


def overlay(name: str, bundle: str = "") -> Path:
    """Return a config file by its path, or one of ours by its name.

    Args:
        name: a path, or the name of a file in ``configs/`` without ``.yaml``.
        bundle: whose own files come first.

    Raises:
        ValueError: if there is none, or are several.
    """
    if Path(name).is_file():
        return Path(name)
    found = [path for path in overlays() if path.stem == name]
    own = [path for path in found if path.parent.name == bundle]
    if len(own or found) == 1:
        return (own or found)[0]
    if found:
        raise ValueError(f"{name!r} is one of several: {', '.join(map(str, found))}; give the path of one.")
    raise ValueError(f"{name!r} is neither a config file nor one of ours; see monai-flowssn list.")


def overlays() -> list[Path]:
    """Return the config files that go after a bundle's."""
    return sorted([*folder("configs").glob("*/**/*.yaml"), *folder("configs").glob("multi_gpu_*.yaml")])


def first_line(path: Path) -> str:
    """Return what a config file says about itself, in its first line."""
    line = path.read_text(encoding="utf-8").split("\n")[0]
    return line.removeprefix("# ") if line.startswith("#") else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(arguments: argparse.Namespace) -> None:
    """Print the lists."""
    print("bundles")
    for name in bundles():
        path = bundle(name)
        about = json.loads((path / "configs" / "metadata.json").read_text(encoding="utf-8"))
        weights = "with weights" if (path / "models" / "model.pt").is_file() else "no weights"
        print(f"  {name:24} {weights:13} {about['name']}: {about['description']}")
    group = ""
    for path in filter(first_line, overlays()):  # a method's own has none: its bundle is made of it
        if path.parent.name != group:
            group = path.parent.name
            print({"data": "data sets", "configs": "several GPUs"}.get(group, group))
        print(f"  {path.stem:24} {first_line(path)}")
