"""Read a data set of your own once: what it is like, what is wrong with it, and the options that fit.

    monai-flowssn check data/datalist.json --into my_project
    monai-flowssn train ssn my_project/my_data.yaml --bundle_root my_run

Written are `my_data.yaml`, a config file with channels, classes, intensity range, window and the like, and `my_data.png`, the
outlines of all raters on six cases: look at it. The command fails where a file does not load, masks do not lie on their image,
or a patient or an image is in two lists.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

KEPT = 24  # cases from which the six of the picture are taken: those that somebody marked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Datalist and folder."""
    parser.add_argument("datalist", type=Path, help="JSON, see README.md")
    parser.add_argument("--into", type=Path, default=Path("."), help="folder of my_data.yaml and my_data.png")


def run(arguments: argparse.Namespace) -> None:
    """Read, tell, write."""
    from tqdm import tqdm

    from monai_flowssn.check import describe, differences, entries, leaks, read, summary

    listed = entries(arguments.datalist)
    candidates = _evenly([entry for entry in listed if any(entry.labels)], KEPT)
    cases, faults, shown = [], [], []
    for entry in tqdm(listed, desc="reading", unit="case"):
        try:
            item = read(entry)
        except ValueError as error:
            faults.append(str(error))
            continue
        case = describe(entry, item)
        cases.append(case)
        faults += [f"{entry.case}: {fault}" for fault in case.faults]
        if entry in candidates and case.extent:
            shown.append(item)
    if cases:
        print(summary(cases))
        faults += differences(cases) + (leaks(cases) or refused(arguments.datalist))
    arguments.into.mkdir(parents=True, exist_ok=True)
    if shown:
        _picture(arguments.into / "my_data.png", _evenly(shown, 6))
    if any(case.values for case in cases):
        try:
            _overlay(arguments.into / "my_data.yaml", cases, arguments.datalist)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        print(f"\n{len(faults)} faults:", *faults, sep="\n  ")
        sys.exit(1)


def refused(datalist: Path) -> list[str]:
    """Return why training would refuse the lists, if it would."""
    from monai_flowssn.data.entries import check_leaks, load_lists

    try:
        check_leaks(load_lists(datalist), datalist, dealt=False)
    except ValueError as error:
        return [str(error)]
    return []


def _evenly(all_of_them: list[Any], most: int) -> list[Any]:
    count = min(most, len(all_of_them))
    return [all_of_them[i * len(all_of_them) // count] for i in range(count)]


def _overlay(path: Path, cases: list[Any], datalist: Path) -> None:
    from monai_flowssn.check import suggest, write_overlay
    from monai_flowssn.cli.shipped import folder

    write_overlay(path, suggest(cases), datalist=datalist, template=folder("configs") / "data" / "datalist.yaml")
    print(f"\nlook at {path.with_suffix('.png')} and {path}, then: monai-flowssn train ssn {path}")


def _picture(path: Path, items: list[dict[Any, Any]]) -> None:
    from monai_flowssn.check import draw_outlines

    draw_outlines(items).savefig(path, dpi=110)
