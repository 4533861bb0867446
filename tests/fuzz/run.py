"""A seeded run over inputs of all kinds; ``scripts/fuzz 1000`` prints how many ended how, and what did not end well."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz import datalists, files, label_requests, masks, metrics, options, pictures, volumes
from fuzz.judge import Input, Verdict, judge, table

KINDS: dict[str, Callable[[np.random.Generator, Path], Input]] = {
    name: make
    for module in (pictures, volumes, files, masks, datalists, options, metrics, label_requests)
    for name, make in module.KINDS.items()
}


def run(count: int, *, seed: int = 0) -> list[Verdict]:
    """Judge so many inputs, of all kinds in turn; input i of a seed is always the same."""
    names = sorted(KINDS)
    verdicts = []
    for i in range(count):
        kind = names[i % len(names)]
        with tempfile.TemporaryDirectory() as folder:
            verdicts.append(judge(kind, KINDS[kind](np.random.default_rng([seed, i]), Path(folder))))
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="show every refusal, to read the messages")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    verdicts = run(options.count, seed=options.seed)
    shown = ("silently wrong", "hang", "unclear", *(["clear"] if options.all else []))
    bad = {f"{v.outcome:16}{v.kind:44}{v.reason[:400]!r}" for v in verdicts if v.outcome in shown}
    sys.stdout.write("\n".join([*sorted(bad), table(verdicts), ""]))


if __name__ == "__main__":
    main()
