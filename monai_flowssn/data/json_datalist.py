"""Anybody's own data: images with one mask file per rater, named in a JSON datalist as MONAI uses them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_flowssn.data.cases import Case, check_cases, pick_evenly
from monai_flowssn.data.entries import LISTS, Entry, annotated, case_of, check_leaks, load_lists, patient_of
from monai_flowssn.data.reading import load_case
from monai_flowssn.data.splits import Split, rotate_folds

__all__ = ["datalist"]


def datalist(
    path: str | Path,
    split: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
    on_error: str = "raise",
) -> list[Case]:
    """List the cases of one split as items that hold paths; `transforms.LoadCased` reads them.

    The JSON is one list of entries, or has the lists "training" and optionally "validation" and "test"::

        {"training": [{"image": "ct/1.nii.gz", "label": ["a/1.nii.gz", null, "c/1.nii.gz"], "patient": "p1"}, ...]}

    An entry has `image`: a file, a folder of DICOM files, or a list of files (channels); `label`: a list with one file per
    rater, null where a rater did not annotate the case (in the test split it may be absent: inference); optionally
    `patient` in all entries (by default every case is another patient), `fold`, and `case`, a unique name. Paths are relative
    to the JSON's folder. `reading.read_image` says what is read and how. A file stands in one entry, a patient in one list; what
    is misspelt, contradicts itself or leaks is refused (`entries`).

    Where the JSON has no validation list, it comes from the training list: the entries of the given `fold`, else a seeded
    split of the patients, which also gives the test split where no list names it.

    With ``folds`` it is a cross-validation as in every data set (`splits.Split`): the labelled entries of all lists are
    dealt anew by patient, and test on ``fold``, validate on the next one, train on the rest. Where training entries have
    a `fold` of their own (0 to folds - 1), those are the folds; the lists for validation and test then stay out of it.

    Args:
        path: the JSON file.
        split: "train", "val" or "test".
        limit: at most so many evenly spaced cases, for quick runs.
        seed: of the split of patients, or of the folds.
        folds: number of folds of a cross-validation, None for a single split.
        fold: the fold to test on; without ``folds``, the fold held out for validation where entries have folds.
        on_error: "raise" checks that every file exists, and leaves a damaged one to `LoadCased`, which names it; "skip"
            opens every file now and leaves out the cases that do not load, with a warning for each.

    Returns:
        Items with image (path or list of paths), label (list of paths, None where a rater did not annotate
        the case), patient, and case.
    """
    path = Path(path).expanduser()
    part = Split(split, folds=folds, fold=fold if folds is not None else 0, seed=seed)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"Got on_error='{on_error}'; choose 'raise' or 'skip'.")
    lists = load_lists(path)
    if fold and folds is None and not any("fold" in entry for entry in lists.get("training", [])):
        raise ValueError(
            f"fold is {fold}, but {path} has no folds and `folds` is not given; give the number of folds too."
        )
    check_leaks(lists, path, dealt=folds is not None)
    entries = pick_evenly(_select(lists, part, fold, path), limit)
    return check_cases(list(_items(entries, path, split, skip=on_error == "skip")), source=path, split=split)


def _select(lists: dict[str, list[Entry]], part: Split, fold: int, path: Path) -> list[Entry]:
    split, training = part.name, lists.get("training", [])
    folded = any("fold" in entry for entry in training)
    if part.folds is not None:
        return _own_folds(training, part, path) if folded else _deal_all(lists, part, path)
    if LISTS[split] in lists and (split != "train" or "validation" in lists):
        return lists[LISTS[split]]
    if split == "test" and (folded or "validation" in lists):
        raise ValueError(f"{path} names no test cases; add a list 'test', or use the split 'val'.")
    if "validation" in lists:
        return training
    if folded:
        return [entry for entry in training if (entry.get("fold") == fold) == (split == "val")]
    fractions = {"fractions": (0.8, 0.2, 0.0)} if "test" in lists else {}
    kept = part.patients([patient_of(entry, path) for entry in training], **fractions)
    return [entry for entry in training if patient_of(entry, path) in kept]


def _deal_all(lists: dict[str, list[Entry]], part: Split, path: Path) -> list[Entry]:
    labelled = [entry for entries in lists.values() for entry in entries if annotated(entry)]
    kept = part.patients([patient_of(entry, path) for entry in labelled])
    return [entry for entry in labelled if patient_of(entry, path) in kept]


def _own_folds(training: list[Entry], part: Split, path: Path) -> list[Entry]:
    parts: dict[Any, set[str]] = {}
    for entry in training:
        if "fold" in entry:
            parts.setdefault(entry["fold"], set()).add(patient_of(entry, path))
    needed = list(range(part.folds or 0))
    if set(parts) != set(needed):
        raise ValueError(
            f"{path}: entries have the folds {sorted(parts, key=str)}, but folds={part.folds} needs exactly {needed}; "
            "give the number of folds that the entries have, or remove the folds from the JSON."
        )
    dealt = rotate_folds([parts[index] for index in needed], part.fold)
    if part.name == "train":  # entries without a fold always train, as they do without a cross-validation
        held = {*dealt["val"], *dealt["test"]}
        return [entry for entry in training if patient_of(entry, path) not in held]
    return [entry for entry in training if patient_of(entry, path) in dealt[part.name]]


def _items(entries: list[Entry], path: Path, split: str, *, skip: bool) -> Iterator[Case]:
    for entry in entries:
        try:
            yield _item(entry, path, split, decode=skip)
        except ValueError as error:
            if not skip:
                raise
            warnings.warn(f"Case skipped: {error}", stacklevel=4)


def _item(entry: Entry, path: Path, split: str, *, decode: bool) -> Case:
    case = case_of(entry, path)
    item: Case = {"image": _existing(entry["image"], path, case), "patient": patient_of(entry, path), "case": case}
    if annotated(entry) or split != "test":
        item["label"] = _raters(entry, path, case)
    if decode:
        load_case(item)
    return item


def _raters(entry: Entry, path: Path, case: str) -> list[str | None]:
    label = entry.get("label") or []
    label = [label] if isinstance(label, str) else label
    raters = [_existing(rater, path, case) if rater else None for rater in label]  # a rater keeps the place
    if not any(raters):
        raise ValueError(f"{path}: case '{case}' has no rater's mask; list at least one file under 'label'.")
    return raters


def _existing(name: Any, path: Path, case: str) -> Any:
    if isinstance(name, list):
        return [_existing(each, path, case) for each in name]
    file = path.parent / name
    if not file.exists():
        raise ValueError(
            f"{path}: case '{case}' names {file}, which does not exist; correct the path, which is relative to the JSON's folder."
        )
    return str(file)
