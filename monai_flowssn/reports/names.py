"""What the name of a metric says: which it is, under which convention, of how many draws."""

from __future__ import annotations

import re
from typing import NamedTuple

LOWER = (
    "ged",
    "crps",
    "nll",
    "ece",
    "existence_brier",
    "existence_calibration",
    "thresholded_brier",
    "thresholded_ece",
)
HIGHER = ("hm_iou", "average_iou", "dice", "ncc", "thresholded_dice", "insight", "surface_dice")


class Name(NamedTuple):
    """Parts of a name such as ``test_ged_v_drop_n16``.

    Args:
        split: what was evaluated: test, val ..., may be empty.
        key: the metric and its convention, ``ged_v_drop``.
        n: the number of draws, 0 where it is not said.
    """

    split: str
    key: str
    n: int

    @property
    def better(self) -> int:
        """-1 where lower is better, 1 where higher is, 0 where neither is (diversity)."""
        if self.key.startswith((*LOWER, "surface_distance")):
            return -1
        return 1 if self.key.startswith(HIGHER) else 0


METRIC = re.compile(
    r"(?:(?P<split>.*?)_)?(?P<key>(?:ged|diversity|hm_iou|average_iou|dice|thresholded|crps|existence|insight|surface|nll|ece|ncc)"
    r"(?:_.*?)?)(?:_n(?P<n>\d+))?"
)


def parse(name: str) -> Name:
    """Take a column's name apart.

    Example:
        >>> parse("test_hm_iou_best_n100")
        Name(split='test', key='hm_iou_best', n=100)
        >>> parse("seconds")
        Name(split='', key='seconds', n=0)
    """
    found = METRIC.fullmatch(name)
    if found is None:
        return Name("", name, 0)
    return Name(found["split"] or "", found["key"], int(found["n"] or 0))


def family(name: str) -> str:
    """The metric without convention and N, for what is and is not the same under other conventions: ``ged``."""
    found = METRIC.fullmatch(name)
    base = "" if found is None else found["key"]
    starts = (*LOWER, *HIGHER, "surface_distance", "diversity", "existence")
    return next((start for start in sorted(starts, key=len, reverse=True) if base.startswith(start)), name)
