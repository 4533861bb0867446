"""Read pickles of NumPy arrays and plain containers, and nothing else: a pickle is a program, so run none of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["load_arrays"]


def _empty_array(_kind: type, _shape: tuple[int, ...], _code: bytes | str) -> np.ndarray:
    """Stand in for NumPy's `_reconstruct`; the pickle then fills the array."""
    return np.empty(0)


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype=dtype)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, by which old protocols write bytes; another codec could do more."""
    if encoding != "latin1":
        raise ValueError(f"The pickle encodes bytes as {encoding!r}; NumPy writes 'latin1' only.")
    return text.encode("latin1")


# the class `ndarray` only ever is the first argument of `_reconstruct`, which ignores it here
_ALLOWED: dict[tuple[str, str], Callable] = {("numpy", "ndarray"): object, ("numpy", "dtype"): np.dtype}
_ALLOWED[("_codecs", "encode")] = _latin1
for _module in ("builtins", "__builtin__"):  # Python 3 and 2
    _ALLOWED[(_module, "set")] = set
for _module in ("numpy.core", "numpy._core"):  # NumPy 1 and 2 name their internals differently
    _ALLOWED[(f"{_module}.multiarray", "_reconstruct")] = _empty_array
    _ALLOWED[(f"{_module}.multiarray", "scalar")] = _scalar
    _ALLOWED[(f"{_module}.numeric", "_frombuffer")] = _from_buffer


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ValueError(
                f"The pickle asks for {module}.{name}; only NumPy arrays and plain containers are read, since anything "
                "else could run code. Do not open it with pickle.load unless you trust its origin."
            )
        return _ALLOWED[(module, name)]


def load_arrays(path: Path) -> Any:
    """Read a pickle that holds NumPy arrays, dicts, lists, tuples, sets, numbers, text and bytes only.

    Pickles of Python 2 are read too (their text as latin-1).

    Raises:
        ValueError: the pickle names any other global, which is not imported, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{path} was not read: {error} If the file is damaged, get it again.") from error
