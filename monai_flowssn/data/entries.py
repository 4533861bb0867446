"""The entries of a JSON datalist: read, and refused where they would train, split or score something else than they say."""

from __future__ import annotations

import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from monai_flowssn.data.cases import safe_name

__all__ = ["LISTS", "Entry", "annotated", "case_of", "check_leaks", "load_lists", "patient_of"]

LISTS = {"train": "training", "val": "validation", "test": "test"}
KEYS = ("image", "label", "patient", "case", "fold")
Entry = Mapping[str, Any]


def load_lists(path: Path) -> dict[str, list[Entry]]:
    """Read the lists "training", "validation" and "test" of a datalist whose entries are sound in themselves.

    Raises:
        ValueError: if it is no datalist, a key is misspelt, a value is of another kind, or some entries alone name a patient.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_key_once)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable JSON file ({error}); give the datalist's own path.") from error
    lists = content if isinstance(content, dict) else {"training": content}
    for key, value in lists.items():
        if key not in LISTS.values() and isinstance(value, list):
            raise ValueError(
                f"{path}: unknown list {key!r}{_meant(key, LISTS.values())}; rename it: lists are {[*LISTS.values()]}."
            )
    lists = {name: lists[name] for name in LISTS.values() if name in lists}
    whole = all(isinstance(each, list) and all(isinstance(entry, dict) for entry in each) for each in lists.values())
    if not lists or not whole:
        raise ValueError(f"{path} holds no datalist; expected a list of entries, or {{'training': [...], ...}}.")
    entries = [*chain(*lists.values())]
    for name, each in lists.items():
        for number, entry in enumerate(each):
            _check_entry(entry, f"{path}: entry {number} of {name}")
    named = [entry for entry in entries if "patient" in entry]
    if 0 < len(named) < len(entries):
        bare = next(entry for entry in entries if "patient" not in entry)
        raise ValueError(
            f"{path}: {len(entries) - len(named)} of {len(entries)} entries have no 'patient', the first of {bare['image']}; "
            "splits keep a patient together, so give it for all, or for none where every case is another patient."
        )
    _tell_of_unknown_keys(entries, path)
    _tell_of_idle_raters(entries, path)
    return lists


def check_leaks(lists: Mapping[str, Sequence[Entry]], path: Path, *, dealt: bool) -> None:
    """Refuse a file that stands in two entries, and a patient who stands in two lists or folds.

    Entries without masks train and score nothing: a patient who is among them and in another list costs a warning.

    Args:
        lists: of :func:`load_lists`.
        path: the JSON file.
        dealt: whether the lists are dealt anew by patient, so that it does not matter in which one a patient stands.
    """
    places: dict[Path, str] = {}
    for name, entries in lists.items():
        for entry in entries:
            here = f"case '{case_of(entry, path)}' of {name}"
            images, masks = ([(path.parent / file).resolve() for file in _files(entry.get(key))] for key in KEYS[:2])
            for file in [*dict.fromkeys(images), *masks]:  # a grey image may stand for three channels
                if file in places:
                    raise ValueError(
                        f"{path}: {file} stands in {places[file]} and again in {here}; a file belongs to one case and one rater: "
                        "name another, or null for a rater who did not annotate."
                    )
                places[file] = here
    _check_folds(lists.get("training", []), path)
    if dealt:
        return
    homes: dict[str, set[str]] = defaultdict(set)
    for name, entries in lists.items():
        for entry in entries:
            homes[patient_of(entry, path)].add(name if annotated(entry) else f"{name} (without masks)")
    for patient, names in homes.items():
        scored = {name for name in names if not name.endswith("(without masks)")}
        if len(scored) > 1:
            raise ValueError(
                f"{path}: patient '{patient}' is in {' and '.join(sorted(names))}; a patient who trains must not validate or "
                "test: move all entries of a patient into one list."
            )
        if scored and len(names) > 1:
            warnings.warn(f"{path}: patient '{patient}' is in {' and '.join(sorted(names))}.", stacklevel=4)


def annotated(entry: Entry) -> bool:
    """Say whether some rater annotated an entry: null, [] and [null, null] are none."""
    label = entry.get("label")
    return any(label) if isinstance(label, list) else bool(label)


def patient_of(entry: Entry, path: Path) -> str:
    """Return the patient of an entry; without one it is the case."""
    return str(entry["patient"]) if "patient" in entry else case_of(entry, path)


def case_of(entry: Entry, path: Path) -> str:
    """Return the name of the case: its own, or that of its first file."""
    first = entry["image"][0] if isinstance(entry["image"], list) else entry["image"]
    name = Path(first) if not Path(first).is_absolute() else Path(*Path(first).parts[-2:])
    stem = str(name) if (path.parent / first).is_dir() else re.sub(r"(\.nii)?\.\w+$", "", str(name))
    return safe_name(str(entry.get("case", stem)))


def _check_entry(entry: Entry, place: str) -> None:
    for key in entry:
        if key not in KEYS and _nearest(key, KEYS):
            raise ValueError(f"{place}: unknown key {key!r}{_meant(key, KEYS)}; rename it: keys are {list(KEYS)}.")
    image, label = entry.get("image"), entry.get("label")
    images = image if isinstance(image, list) else [image]
    if not images or not all(isinstance(file, str) and file for file in images):
        raise ValueError(
            f"{place} has no 'image' but {image!r}; name a file, a DICOM folder, or a list of channel files."
        )
    raters = label if isinstance(label, list) else [label]
    if not all(file is None or (isinstance(file, str) and file) for file in raters):
        raise ValueError(
            f"{place}: 'label' is {label!r}; list one file per rater, null where a rater did not annotate."
        )
    for key in ("patient", "case"):
        value = entry.get(key)
        named = (isinstance(value, str) and value.strip() and value == value.strip()) or type(value) is int
        if key in entry and not named:
            raise ValueError(
                f"{place}: {key!r} is {value!r}; it must be a text without spaces around it, or an integer: leave the key out in "
                "all entries if none is known."
            )
    if "fold" in entry and type(entry["fold"]) is not int:
        raise ValueError(
            f"{place}: 'fold' is {entry['fold']!r}; it must be an integer, from 0: write it without quotes."
        )


def _check_folds(training: Sequence[Entry], path: Path) -> None:
    folds: dict[str, Any] = {}
    if any("fold" in entry for entry in training):
        for entry in training:
            if folds.setdefault(patient_of(entry, path), entry.get("fold")) != entry.get("fold"):
                raise ValueError(
                    f"{path}: a patient is in two folds, '{patient_of(entry, path)}'; give all entries of a patient one fold."
                )


def _files(value: Any) -> Iterable[str]:
    return filter(None, value if isinstance(value, list) else [value])


def _tell_of_unknown_keys(entries: Sequence[Entry], path: Path) -> None:
    unknown = sorted(set(chain(*entries)) - set(KEYS))
    if unknown:
        warnings.warn(f"{path}: entries have {unknown}, which are not read; keys are {list(KEYS)}.", stacklevel=4)


def _tell_of_idle_raters(entries: Sequence[Entry], path: Path) -> None:
    labels = [entry["label"] for entry in entries if isinstance(entry.get("label"), list)]
    idle = [
        r for r in range(max(map(len, labels), default=0)) if not any(label[r] for label in labels if r < len(label))
    ]
    if any(map(any, labels)):
        for rater in idle:
            warnings.warn(f"{path}: rater {rater}, counted from 0, is null in every entry.", stacklevel=4)


def _each_key_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return content


def _nearest(key: str, known: Iterable[str]) -> list[str]:
    return get_close_matches(key.lower(), list(known), n=1, cutoff=0.8)


def _meant(key: str, known: Iterable[str]) -> str:
    return "".join(f" (did you mean {name!r}?)" for name in _nearest(key, known))
