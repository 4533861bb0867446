"""One drawing at a time on every device, beside the server's own work, that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from torch.overrides import TorchFunctionMode

__all__ = ["BusyError", "Lanes", "StoppedError", "stop_if_cancelled"]

T = TypeVar("T")
_cancel: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("cancel", default=None)


class BusyError(Exception):
    """So many wait for a device that one more is refused."""


class StoppedError(BaseException):
    """Nobody waits for a drawing any more, or it took too long; no ``except Exception`` on the way takes it for a faulty file."""


def stop_if_cancelled() -> None:
    """Raise :class:`StoppedError` in a drawing that was cancelled.

    >>> stop_if_cancelled()  # nothing was cancelled here
    """
    event = _cancel.get()
    if event is not None and event.is_set():
        raise StoppedError("cancelled")


class _StopsIfCancelled(TorchFunctionMode):
    """Look before every call of PyTorch: layers alone are not enough, of many draws an SSN asks its network once."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stop_if_cancelled()
        return function(*args, **(kwargs or {}))


class Lanes:
    """A thread for every device, and the requests that wait for it.

    Args:
        waiting: how many may wait for a device, beside the one that it draws for.
        seconds: how long a request may take, its waiting included.
    """

    def __init__(self, *, waiting: int, seconds: float) -> None:
        self.waiting, self.seconds = waiting, seconds
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._count: Counter[str] = Counter()
        self._running: set[threading.Event] = set()
        self._closed = False

    async def run(self, device: str, action: Callable[[], T], gone: Callable[[], Awaitable[Any]]) -> T:
        """Run an action in the device's thread when its turn comes.

        Args:
            device: its name.
            action: what to do; it ends early at its next call of PyTorch, or by :func:`stop_if_cancelled`.
            gone: waits until the client no longer does.

        Returns:
            what the action returns.

        Raises:
            BusyError: if too many wait.
            StoppedError: if the client went, the time was up, or the server ends.
        """
        if self._closed:
            raise StoppedError("the server ends")
        if self._count[device] > self.waiting:
            raise BusyError(
                f"{self._count[device]} requests are before this one on {device}, no more may wait; ask again later."
            )
        cancel = threading.Event()
        context = contextvars.copy_context()
        context.run(_cancel.set, cancel)
        thread = self._threads.setdefault(device, ThreadPoolExecutor(1, f"draw-{device}"))
        self._count[device] += 1
        self._running.add(cancel)
        future = thread.submit(context.run, _unless_cancelled, action)
        work, client = asyncio.wrap_future(future), asyncio.ensure_future(gone())
        try:
            done, _ = await asyncio.wait({work, client}, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                return work.result()
            cancel.set()
            future.cancel()  # unless it has begun
            await asyncio.gather(work, return_exceptions=True)
            raise StoppedError(
                "the client is gone" if done else f"not done after {self.seconds:g} s; ask for fewer draws"
            )
        finally:
            cancel.set()
            client.cancel()
            self._count[device] -= 1
            self._running.discard(cancel)

    def close(self) -> None:
        """Cancel everything, and take nothing more."""
        self._closed = True
        for cancel in list(self._running):
            cancel.set()


def _unless_cancelled(action: Callable[[], T]) -> T:
    stop_if_cancelled()
    with _StopsIfCancelled():
        return action()
