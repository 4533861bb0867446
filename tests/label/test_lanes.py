"""Drawings in their lanes: one at a time, a bounded queue, ended when nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest
import torch

from monai_flowssn.label.lanes import BusyError, Lanes, StoppedError, stop_if_cancelled


async def never() -> None:
    await asyncio.Event().wait()


def wait_for(release: threading.Event) -> Callable[[], str]:
    def action() -> str:
        while not release.wait(0.01):
            stop_if_cancelled()
        return "done"

    return action


def test_one_at_a_time_on_a_device() -> None:
    active, most, lock = 0, 0, threading.Lock()

    def action() -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        threading.Event().wait(0.01)
        with lock:
            active -= 1

    async def everything() -> None:
        lanes = Lanes(waiting=16, seconds=60)
        await asyncio.gather(*(lanes.run("cpu", action, never) for _ in range(8)))

    asyncio.run(everything())
    assert most == 1


def test_two_devices_at_once() -> None:
    together = threading.Barrier(2, timeout=10)

    async def everything() -> None:
        lanes = Lanes(waiting=16, seconds=60)
        await asyncio.gather(*(lanes.run(device, together.wait, never) for device in ("cuda:0", "cuda:1")))

    asyncio.run(everything())


def test_the_loop_goes_on_and_the_queue_is_bounded() -> None:
    async def everything() -> None:
        lanes, release = Lanes(waiting=2, seconds=60), threading.Event()
        tasks = [asyncio.ensure_future(lanes.run("cpu", wait_for(release), never)) for _ in range(3)]
        await asyncio.sleep(0.05)  # the loop is free while one draws
        with pytest.raises(BusyError, match="3 requests are before this one on cpu"):
            await lanes.run("cpu", wait_for(release), never)
        release.set()
        assert await asyncio.gather(*tasks) == ["done"] * 3
        assert await lanes.run("cpu", lambda: "again", never) == "again"

    asyncio.run(everything())


def test_a_client_that_goes_ends_its_drawing_alone() -> None:
    async def everything() -> None:
        lanes, release = Lanes(waiting=16, seconds=60), threading.Event()
        leave, leave_early = asyncio.Event(), asyncio.Event()
        drawing = asyncio.ensure_future(lanes.run("cpu", wait_for(threading.Event()), leave.wait))
        in_queue = asyncio.ensure_future(lanes.run("cpu", wait_for(threading.Event()), leave_early.wait))
        last = asyncio.ensure_future(lanes.run("cpu", wait_for(release), never))
        await asyncio.sleep(0.05)
        for event, task in ((leave_early, in_queue), (leave, drawing)):
            event.set()
            with pytest.raises(StoppedError, match="gone"):
                await task
        release.set()
        assert await last == "done"

    asyncio.run(everything())


def test_time_and_the_end_of_the_server() -> None:
    async def everything() -> None:
        with pytest.raises(StoppedError, match=r"not done after 0\.05 s"):
            await Lanes(waiting=16, seconds=0.05).run("cpu", wait_for(threading.Event()), never)
        lanes = Lanes(waiting=16, seconds=60)
        tasks = [asyncio.ensure_future(lanes.run("cpu", wait_for(threading.Event()), never)) for _ in range(2)]
        await asyncio.sleep(0.05)
        lanes.close()
        for task in tasks:
            with pytest.raises(StoppedError):
                await task
        with pytest.raises(StoppedError, match="server ends"):
            await lanes.run("cpu", lambda: None, never)

    asyncio.run(everything())


def test_a_drawing_stops_at_its_next_call_of_pytorch() -> None:
    leave = threading.Event()
    begun, values = 0, torch.zeros(1)

    def drawing() -> None:
        nonlocal begun
        while True:
            begun += 1
            leave.set()
            values.add_(1)  # no layer

    async def everything() -> None:
        gone = partial(asyncio.to_thread, leave.wait)
        with pytest.raises(StoppedError):
            await asyncio.wait_for(Lanes(waiting=16, seconds=60).run("cpu", drawing, gone), 10)

    asyncio.run(everything())
    assert begun > values.item()  # the last one was stopped
    assert (values + 1).item() == values.item() + 1  # other threads, and what comes after, go on
