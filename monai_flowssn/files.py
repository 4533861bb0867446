"""Files that are written whole or not at all, folders that one process works in, and arrays that are too large for memory."""

from __future__ import annotations

import atexit
import errno
import math
import os
import platform
import re
import shlex
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch

try:
    import fcntl
except ImportError:  # not a Unix: nothing is locked
    fcntl = None  # type: ignore[assignment]

__all__ = ["hold", "label_maps", "saver", "written_whole"]

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

    What a process that was killed has left of such files goes when the next one first writes into the folder.

    Args:
        path: file to write; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(f".part-{os.getpid()}-{_MACHINE}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_PART = re.compile(r"\.part-(\d+)-([0-9a-f]{8})-")
_swept: set[Path] = set()


def _sweep(folder: Path) -> None:
    """Remove parts of dead processes; of other machines, whose processes are not to be seen, those of the day before."""
    if folder.absolute() in _swept:
        return
    _swept.add(folder.absolute())
    for path in folder.iterdir():
        if part := _PART.match(path.name):
            with suppress(OSError):  # another process may have been faster
                old = time.time() - path.stat().st_mtime > 86400
                if old if part[2] != _MACHINE else not _alive(int(part[1])):
                    path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def saver(folder: Path) -> Callable[[Mapping[str, Any], str], None]:
    """Return what ignite's ``Checkpoint`` saves with: a file is written whole or not at all, by the first of several processes.

    Args:
        folder: of the files.
    """

    def save(state: Mapping[str, Any], name: str) -> None:
        if idist.get_rank() == 0:
            with written_whole(folder / name) as part, part.open("wb") as file:
                torch.save(state, file)

    return save


_held: set[Path] = set()


def hold(folder: Path) -> None:
    """Keep other processes out of a folder until this one ends, in whatever way: the lock is the system's.

    Args:
        folder: it is made.

    Raises:
        ValueError: names the process that works in it.
    """
    folder = folder.resolve()
    if folder in _held or fcntl is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / ".lock").open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike that of flock, workers that are forked do not have it
    except OSError as error:
        with file:
            file.seek(0)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(
                    f"{folder} is in use by {file.read() or 'another process'}; wait until it has ended, or give another "
                    "--bundle_root or --output_dir."
                ) from None
        return  # a file system without locks
    file.truncate(0)
    file.write(
        f"process {os.getpid()} on {platform.node()} since {time.strftime('%d %b %H:%M')} ({shlex.join(sys.argv)[:200]})"
    )
    file.flush()
    atexit.register(file.close)
    _held.add(folder)
