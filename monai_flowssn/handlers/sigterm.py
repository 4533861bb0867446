"""SIGTERM, with which schedulers end a job, as an exception."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def catch_sigterm() -> None:
    """Let a SIGTERM unwind the engine like Ctrl-C does; by default Python dies on the spot."""
    # Python lets the main thread alone do this; a handler that somebody else has set stays.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def release_sigterm() -> None:
    """Undo :func:`catch_sigterm`."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _exit:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
