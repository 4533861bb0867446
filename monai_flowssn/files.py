"""Files that are written whole or not at all, and arrays that are too large for memory."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

__all__ = ["label_maps", "written_whole"]

#: Bytes from which label maps are kept in a file.
KEPT_IN_MEMORY = 2**28


def label_maps(shape: Sequence[int]) -> torch.Tensor:
    """Make room for label maps, uint8: in memory, or for 256 MiB and more in a temporary file that goes when they do.

    The file lies in the system's folder for such (the environment variable TMPDIR), which should be on a disk, and the
    system keeps in memory what fits.

    Args:
        shape: such as (N, *S).

    Raises:
        OSError: if that folder has no room for them.
    """
    size = math.prod(shape)
    if size < KEPT_IN_MEMORY:
        return torch.empty(tuple(shape), dtype=torch.uint8)
    with tempfile.TemporaryFile() as file:  # the mapping holds it open
        if hasattr(os, "posix_fallocate"):  # now, because a mapping that finds no room later ends the process
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise OSError(
                    f"draws of shape {tuple(shape)} need {size / 2**30:.1f} GiB in {tempfile.gettempdir()} ({error}); make room, "
                    "set TMPDIR to a folder on another disk, or draw fewer."
                ) from error
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, shape=tuple(shape), mode="w+"))


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place once the block has ended without an error.

    Args:
        path: file to write; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
