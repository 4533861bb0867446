"""Copy a bundle into a folder of your own, to change it there.

    monai-flowssn copy ssn my_ssn_segmentation

MONAI Label goes by "segmentation" in the name of the folder.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from monai_flowssn.cli.shipped import bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Bundle and folder."""
    parser.add_argument("bundle", help="a name of monai-flowssn list, or a folder")
    parser.add_argument("into", type=Path, help="a new folder")


def run(arguments: argparse.Namespace) -> None:
    """Copy."""
    if arguments.into.exists():
        raise ValueError(f"{arguments.into} is there already; give a new folder.")
    shutil.copytree(bundle(arguments.bundle), arguments.into)
    print(arguments.into)
