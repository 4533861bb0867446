"""What became of an input: the right value, a clear refusal, or something that must not happen."""

from __future__ import annotations

import re
import signal
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from monai_flowssn.transforms import CheckCased, LoadCased

OUTCOMES = ("silently wrong", "hang", "unclear", "clear", "ok")
LIMIT = 20.0  # seconds, after which an input counts as a hang
FIX = re.compile(
    r"\b(add|append|apply|choose|convert|copy|correct|did you mean|give|have|keep|leave|list|map|move|must|name|pass|"
    r"put|quote|raise|"
    r"read|remap|remove|replace|resample|rename|run|save|say|separate|store|take|threshold|unpack|use|write)\b",
    re.IGNORECASE,
)


class Input(NamedTuple):
    """One input and what must become of it.

    Args:
        call: what a user does with it.
        right: whether the result is right; None if there is no right result and it must be refused.
        names: what a refusal, or the warning that goes with the result, must name: the case, the file.
        told: whether a right result comes with a warning.
    """

    call: Callable[[], Any]
    right: Callable[[Any], Any] | None = None
    names: Sequence[str] = ()
    told: bool = False


class Verdict(NamedTuple):
    """The outcome of one input, and why."""

    kind: str
    outcome: str
    reason: str = ""


class HangError(Exception):
    """An input took too long."""


def read(item: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Load and check a case, as the first steps of every workflow do."""
    return CheckCased(**{"num_classes": 2, **options})(LoadCased()(item))


def judge(kind: str, item: Input) -> Verdict:
    """Run one input and say what became of it."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        try:
            with _limited():
                result = item.call()
        except HangError:
            return Verdict(kind, "hang")
        except Exception as error:
            return Verdict(kind, _of_error(item, error), f"{type(error).__name__}: {error}")
    if item.right is None:
        return Verdict(kind, "silently wrong", f"was accepted: {result!r:.200}")
    if not item.right(result):
        return Verdict(kind, "silently wrong", f"gave another value: {result!r:.200}")
    said = " ".join(str(warning.message) for warning in record if warning.category is UserWarning)
    if item.told and not all(name in said for name in item.names):
        return Verdict(kind, "silently wrong", "nothing was said")
    return Verdict(kind, "ok")


def _of_error(item: Input, error: Exception) -> str:
    text = str(error)
    clear = isinstance(error, ValueError) and all(name in text for name in item.names) and FIX.search(text)
    return "clear" if item.right is None and clear else "unclear"  # nor is the refusal of a sound input clear


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(verdicts: Iterable[Verdict]) -> str:
    """Count the outcomes of each group of kinds, which is what stands before the colon."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        for row in (verdict.kind.split(":")[0], "all"):
            counts[row][verdict.outcome] += 1
    rows = [*sorted(set(counts) - {"all"}), "all"]
    lines = [f"{'':12}{''.join(f'{name:>16}' for name in OUTCOMES)}{'inputs':>10}"]
    for row in rows:
        found = counts[row]
        lines.append(f"{row:12}{''.join(f'{found[name]:>16}' for name in OUTCOMES)}{sum(found.values()):>10}")
    return "\n".join(lines)
