"""HDF5 files that hold what they hand out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

__all__ = ["opened"]


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading that is whole, and that takes no data from other files.

    Links to other files and external storage name any file of this machine, which whoever made the HDF5 file may not read
    himself, and are not moved with it.

    Raises:
        ValueError: if it is cut, or anything in it lies elsewhere.
    """
    try:
        with h5py.File(path, "r") as file:
            _refuse_elsewhere(file, path)
            yield file
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{path} is not a whole HDF5 file ({error}); it was probably cut while being copied or written. "
            "Compare its size with the source, and copy, download or unpack it again."
        ) from error


def _refuse_elsewhere(group: h5py.Group, path: Path) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink):  # what it names is looked at in its own place
            continue
        found = None if isinstance(link, h5py.ExternalLink) else group[name]
        if found is None or (isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)):
            raise ValueError(
                f"{path}: '{group.name.rstrip('/')}/{name}' lies in another file, which is not read; copy it into this one "
                "(h5repack or h5copy -f ext)."
            )
        if isinstance(found, h5py.Group):
            _refuse_elsewhere(found, path)
