"""Turn the maps of an inference on a DICOM series into objects of the same study.

    monai-flowssn dicom-out my_run/runs/inference/CASE SERIES_FOLDER [--store http://127.0.0.1:8042/dicom-web]

CASE is the folder that inference wrote, SERIES_FOLDER the series that it read. Written beside the maps, as four new series: a
DICOM-SEG of the segmentation and one of every draw, with one segment a class, and parametric maps of entropy and mutual
information in nats.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Case and series."""
    parser.add_argument("case", type=Path)
    parser.add_argument("folder", type=Path, help="of the series")
    parser.add_argument("--series", metavar="UID", help="SeriesInstanceUID, if the folder has several")
    parser.add_argument("--store", metavar="ADDRESS", help="also store them in a PACS, by DICOMweb")


def run(arguments: argparse.Namespace) -> None:
    """Write, and store."""
    from monai_flowssn.dicom import read_series, store_files, write_objects

    paths = write_objects(arguments.case, read_series(arguments.folder, arguments.series))
    if arguments.store:
        store_files(arguments.store, paths)
    print("\n".join(map(str, paths)))
