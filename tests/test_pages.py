"""The pages of the public interface: every name says what it is, with its shapes, and names what exists."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import monai_flowssn

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = ("__main__", "cli", "label")  # the command line, and what needs MONAI Label
SHAPE = re.compile(r"\((?:[A-Z]|\.\.\.?|\*S|cases)(?: [*+-] \w+)?,")  # such as (B, C, *S)
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([\w.]+)`")


def public() -> list[str]:
    names = [module.name for module in pkgutil.iter_modules(monai_flowssn.__path__)]
    return [f"monai_flowssn.{name}" for name in names if name not in ELSEWHERE]


def callables(module: ModuleType) -> Iterator[tuple[str, Any, Any]]:
    """Return the name, the class if it is of one, and the function of everything public that can be called."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            own = (each for each in vars(value).items() if inspect.isfunction(each[1]))
            yield from ((f"{name}.{key}", value, each) for key, each in own if key == "__call__" or key[0] != "_")
        elif inspect.isroutine(value):
            yield name, None, value


@pytest.mark.parametrize("name", public())
def test_every_public_name_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    classes = [getattr(module, each) for each in module.__all__ if inspect.isclass(getattr(module, each))]
    missing = [each.__name__ for each in classes if "__doc__" not in vars(each) or not each.__doc__]
    shapeless = []
    for called, owner, function in callables(module):
        key = called.split(".")[-1]
        text = inspect.getdoc(getattr(owner, key) if owner else function)  # a method's may be that of its base class
        if not text:
            missing.append(called)
        annotations = inspect.signature(function).parameters.values()
        tensors = any("Tensor" in str(each.annotation) for each in annotations)
        if text and tensors and not SHAPE.search(f"{text} {inspect.getdoc(owner) if owner else ''}"):
            shapeless.append(called)
    assert (missing, shapeless) == ([], [])


@pytest.mark.parametrize("name", public())
def test_what_a_text_names_exists(name: str) -> None:
    module = importlib.import_module(name)
    unknown = []
    for each in module.__all__:
        value = getattr(module, each)
        own = inspect.getmodule(value)
        texts = [inspect.getdoc(value)] + [
            inspect.getdoc(method) for _, owner, method in callables(module) if owner is value
        ]
        for text in filter(None, texts):
            places = (f"{own.__name__}." if own else "", f"{name}.", f"{own.__name__ if own else name}.{each}.", "")
            for target in ROLE.findall(text):
                if not any(pydoc.locate(place + target) for place in places):
                    unknown.append((each, target))
    assert not unknown


@pytest.mark.skipif(importlib.util.find_spec("pdoc") is None, reason="pdoc is not installed: scripts/setup does")
def test_the_pages_are_written_without_a_warning(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "scripts/pages.py", tmp_path], cwd=ROOT, check=True, capture_output=True)
    page = (tmp_path / "monai_flowssn" / "segmenters.html").read_text()
    assert "Monteiro" in page
    assert '<a href="#TransportedP2SAM">' in page  # where a text names another class
    start = (tmp_path / "monai_flowssn.html").read_text()
    assert all(f"{name.replace('.', '/')}.html" in start for name in public())
