"""REFUGE-MultiRater: colour fundus images whose optic cup and disc seven ophthalmologists outlined.

References: Orlando et al., "REFUGE Challenge", Medical Image Analysis 59, 2020, arXiv 1910.03667 (images); Wu et al.,
"Learning Self-Calibrated Optic Disc and Cup Segmentation from Multi-Rater Annotations", 2022, arXiv 2206.05092 (raters);
De Sousa Ribeiro et al., "Flow Stochastic Segmentation Networks", 2025, arXiv 2507.18838 (the cup at 256x256).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monai_flowssn.data.cases import Case, check_cases, make_case, pick_evenly
from monai_flowssn.data.pictures import open_mask, read_picture, resize_image, resize_mask, to_bytes
from monai_flowssn.data.splits import Split

__all__ = ["refuge"]

RATERS = range(1, 8)
STRUCTURES = ("disc", "cup")
TABLES = {"train": "refuge_train.csv", "val": "refuge_valid.csv", "test": "refuge_test.csv"}
FOLDERS = {"train": "Training", "val": "Validation", "test": "Test"}


class _Files(NamedTuple):
    case: str
    image: Path
    masks: list[list[Path]]  # of each structure, one per rater


def refuge(
    root: str | Path,
    split: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
    size: int = 256,
    structures: Sequence[str] = ("cup",),
) -> list[Case]:
    """List the cases of one split as in-memory items, resized to a square.

    `root` has, for every split, one of

    - a table refuge_train.csv, refuge_valid.csv, refuge_test.csv with the columns img_path, seg_cup_1_path to
      seg_cup_7_path and seg_disc_1_path to seg_disc_7_path, as the code of Flow-SSN reads them. Paths that are not valid
      here are looked for under `root` by their last parts, as PNG or JPEG;
    - a folder Training-400, Validation-400, Test-400, as the archive unpacks: <case>/<case>.jpg with
      <case>_seg_cup_1.png to _7.png and <case>_seg_disc_1.png to _7.png. Other files there are not used.

    A mask pixel of the smaller image is foreground where at least half of its area was (the code of Flow-SSN rounds soft
    edges down, which peels half a pixel off every mask). The archive names no patients: every image counts as one.
    Written for these layouts; has not met the real archive.

    Args:
        root: folder of the tables or of the three folders.
        split: "train", "val" or "test", which are the challenge's own: 400 images each.
        limit: at most so many evenly spaced cases, for quick runs.
        seed: of the folds.
        folds: number of folds of a cross-validation over all images, None for the challenge's split; see `splits.Split`.
        fold: the fold to test on.
        size: height and width of the resized images; the aspect (2124x2056 or 1634x1634 pixels) becomes 1.
        structures: what the class ids 1, 2, ... stand for, each painted over those before it. ("cup",) as in Flow-SSN;
            ("disc", "cup") makes three classes: background, rim of the disc, cup.

    Returns:
        Items with image (3, *S) uint8, label (7, *S) uint8, patient, and case.
    """
    root, part = Path(root).expanduser(), Split(split, folds=folds, fold=fold, seed=seed)
    if not structures or len(set(structures)) < len(structures) or not set(structures) <= set(STRUCTURES):
        raise ValueError(f"Got structures={list(structures)}; name one or both of {STRUCTURES}, each once.")
    if size < 1:
        raise ValueError(f"Got size={size}; use a positive number of pixels.")
    found = {name: _list_cases(root, name, structures) for name in part.sources}
    kept = part.patients({name: [each.case for each in cases] for name, cases in found.items()})
    chosen = pick_evenly([each for cases in found.values() for each in cases if each.case in kept], limit)
    with ThreadPoolExecutor() as pool:  # nearly all the time goes into decoding, during which Pillow lets threads run
        items = list(pool.map(lambda files: _read(files, size), chosen))
    return check_cases(items, source=root, split=split)


def _list_cases(root: Path, split: str, structures: Sequence[str]) -> list[_Files]:
    table = root / TABLES[split]
    folders = sorted(path for path in root.glob(f"{FOLDERS[split]}*") if path.is_dir())
    if table.is_file():
        return _from_table(table, split, structures)
    if not folders:
        raise ValueError(
            f"{root} has neither the table {table.name} nor a folder {FOLDERS[split]}-400; give the folder in which "
            "REFUGE-MultiRater was unpacked."
        )
    cases = sorted(path for path in folders[0].iterdir() if path.is_dir())
    return [_from_folder(path, split, structures) for path in cases]


def _from_table(table: Path, split: str, structures: Sequence[str]) -> list[_Files]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{table} is not a readable table ({error}); write it again as comma-separated text."
        ) from error
    columns = [[f"seg_{structure}_{rater}_path" for rater in RATERS] for structure in structures]
    for number, row in enumerate(rows, start=2):
        missing = [name for name in ("img_path", *chain(*columns)) if not row.get(name)]
        if missing:
            raise ValueError(
                f"{table}: line {number} has no {missing}; every image needs the masks of all seven raters."
            )
    return [
        _Files(
            f"{split}_{Path(row['img_path']).stem}",
            _locate(row["img_path"], table),
            [[_locate(row[name], table) for name in names] for names in columns],
        )
        for row in rows
    ]


def _locate(name: str, table: Path) -> Path:
    """Find the file that a table names by its path on another machine."""
    parts = Path(name.replace("\\", "/")).parts
    for start in range(len(parts)):
        path = table.parent.joinpath(*parts[start:])
        for candidate in (path, path.with_suffix(".png"), path.with_suffix(".jpg")):
            if candidate.is_file():
                return candidate
    raise ValueError(f"{table} names {name}, which is missing; no end of this path is a file under {table.parent}.")


def _from_folder(folder: Path, split: str, structures: Sequence[str]) -> _Files:
    image = folder / f"{folder.name}.jpg"
    masks = [[folder / f"{folder.name}_seg_{structure}_{rater}.png" for rater in RATERS] for structure in structures]
    return _Files(f"{split}_{folder.name}", image if image.exists() else image.with_suffix(".png"), masks)


def _read(files: _Files, size: int) -> Case:
    image = to_bytes(read_picture(files.image, channels=3), files.image)
    label = np.zeros((len(RATERS), size, size), np.uint8)  # (R, *S)
    for value, paths in enumerate(files.masks, start=1):
        for mask, path in zip(label, paths):
            mask[resize_mask(open_mask(path, like=image), (size, size)) > 0] = value
    return make_case(resize_image(image, (size, size)), label, patient=files.case, case=files.case)
