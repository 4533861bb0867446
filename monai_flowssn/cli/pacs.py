"""Draw a study of a PACS with a trained bundle, and store the results beside it, all by DICOMweb.

    monai-flowssn pacs http://127.0.0.1:8042/dicom-web STUDY_UID my_segmentation --into answers

The bundle is one that `monai-flowssn package` wrote. `--into` keeps series, maps and objects in `answers/STUDY_UID`. Further
options are ids of the bundle's inference, such as `--draws 32`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from monai_flowssn.cli.shipped import bundle
from monai_flowssn.cli.workflows import command

PASSES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PACS, study and bundle."""
    parser.add_argument("address", help="of the DICOMweb service")
    parser.add_argument("study", help="StudyInstanceUID")
    parser.add_argument("bundle", help="folder of a trained bundle")
    parser.add_argument("--series", metavar="UID", help="SeriesInstanceUID, if the study has several series of images")
    parser.add_argument("--into", type=Path, default=Path("."), help="a folder for files")


def run(arguments: argparse.Namespace) -> None:
    """Fetch, draw, store."""
    from monai_flowssn.dicom import fetch_series, read_series, store_files, write_objects

    folder = (arguments.into / arguments.study).resolve()
    series = fetch_series(arguments.address, arguments.study, folder / "series", arguments.series)
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"test": [{"image": "series", "case": "maps"}]}), encoding="utf-8")
    # in place of the data of its training, one case; nothing else of the bundle changes
    data = {"_target_": "monai_flowssn.data.datalist", "_mode_": "callable", "path": str(datalist)}
    options = [
        "--data::cases",
        json.dumps(data),
        "--bundle_root",
        str(bundle(arguments.bundle)),
        "--output_dir",
        str(folder),
    ]
    inference = command("infer", arguments.bundle, [], [*options, *arguments.options])
    if subprocess.run(inference, check=False).returncode:
        raise ValueError("the inference failed, as is said above.")
    (maps,) = folder.glob("**/maps_mean.nii.gz")
    stored = store_files(arguments.address, write_objects(maps.parent, read_series(series)))
    print(f"{len(stored)} objects stored in study {arguments.study}; maps in {maps.parent}")
