"""Load a MONAI Label server with several clients at once, and print how long its answers take.

    python scripts/label_load.py http://127.0.0.1:8000 my_segmentation STUDY [STUDY ...] --clients 8 --requests 20 --draws 16

Every client asks for so many inferences, one after another. Beside them /info is asked for every 50 ms, and before them for as
many times, from the idle server. A request that fails, or whose 99th percentile of /info is more than ten times that of the idle
server, makes the script fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import numpy as np

PAUSE = 0.05


def timed(address: str, params: dict[str, object] | None = None) -> tuple[float, str]:
    """Return the seconds that a request takes, and what is wrong with its answer, if anything."""
    body = None if params is None else urlencode({"params": json.dumps(params)}).encode()
    start = time.perf_counter()
    try:
        with urlopen(Request(address, data=body), timeout=600) as answer:
            answer.read()
        wrong = ""
    except (URLError, OSError) as error:
        wrong = str(error)
    return time.perf_counter() - start, wrong


def ask_until(stop: threading.Event, address: str) -> list[tuple[float, str]]:
    """Ask again and again."""
    times = []
    while not stop.wait(PAUSE):
        times.append(timed(address))
    return times


def row(name: str, times: list[tuple[float, str]]) -> str:
    """Return a line of the table."""
    seconds = 1000 * np.array([each for each, _ in times])
    median, p99 = np.percentile(seconds, [50, 99])
    failures = sum(bool(wrong) for _, wrong in times)
    return f"{name:24} {len(times):8} {failures:8} {median:10.1f} {p99:10.1f} {seconds.max():10.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=20, help="of each client")
    parser.add_argument("--draws", type=int, default=16)
    arguments = parser.parse_args()
    info = f"{arguments.address}/info/"
    infer = [
        f"{arguments.address}/infer/{quote(arguments.model)}?output=image&image={quote(s)}" for s in arguments.studies
    ]

    first = timed(infer[0], {"draws": arguments.draws})
    alone = [timed(infer[0], {"draws": arguments.draws}) for _ in range(10)]
    idle = []
    for _ in range(200):
        time.sleep(PAUSE)
        idle.append(timed(info))
    stop = threading.Event()
    with ThreadPoolExecutor(arguments.clients + 1) as threads:
        beside = threads.submit(ask_until, stop, info)

        def client(number: int) -> list[tuple[float, str]]:
            return [
                timed(infer[(number + i) % len(infer)], {"draws": arguments.draws}) for i in range(arguments.requests)
            ]

        start = time.perf_counter()
        drawn = [each for times in threads.map(client, range(arguments.clients)) for each in times]
        took = time.perf_counter() - start
        stop.set()
        loaded = beside.result()

    print(f"{'':24} {'requests':>8} {'failures':>8} {'median ms':>10} {'p99 ms':>10} {'max ms':>10}")
    print(row("/infer, the first", [first]))
    print(row("/infer, one client", alone))
    print(row(f"/infer, {arguments.clients} clients", drawn))
    print(row("/info, idle", idle))
    print(row("/info, beside them", loaded))
    ratio = np.percentile([t for t, _ in loaded], 99) / np.percentile([t for t, _ in idle], 99)
    print(
        f"{len(drawn) / took:.2f} answers of {arguments.draws} draws a second; p99 of /info beside them: {ratio:.1f} times idle"
    )
    wrong = {text for _, text in (first, *alone, *drawn, *idle, *loaded) if text}
    if wrong or ratio > 10:
        sys.exit("; ".join(wrong) or "/info is slower than ten times that of the idle server")


if __name__ == "__main__":
    main()
