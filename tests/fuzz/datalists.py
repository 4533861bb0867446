"""JSON datalists: sound ones in every form, and one thing wrong at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.judge import Input
from fuzz.pictures import Rng
from PIL import Image

from monai_flowssn.data import datalist

Lists = dict[str, list[dict[str, Any]]]
NAMES = ("training", "validation", "test")
SPLITS = dict(zip(("train", "val", "test"), NAMES))


def entries(rng: Rng, folder: Path, n: int = 9) -> list[dict[str, Any]]:
    """Entries of two raters and a patient each, whose files exist."""
    made = []
    for i in range(n):
        names = [f"{kind}/{i}.png" for kind in ("image", "a", "b")]
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 2, (4, 4), dtype=np.uint8)).save(folder / name)
        made.append({"image": names[0], "label": names[1:], "patient": f"p{i}"})
    return made


def in_lists(made: list[dict[str, Any]]) -> Lists:
    return {name: made[3 * i : 3 * i + 3] for i, name in enumerate(NAMES)}


def write(folder: Path, content: Any, **options: Any) -> Path:
    (folder / "data.json").write_text(json.dumps(content), **options)
    return folder / "data.json"


def images(made: list[dict[str, Any]]) -> Any:
    """Whether a data list has the images of these entries, in order."""
    return lambda found: [Path(item["image"]).stem for item in found] == [Path(entry["image"]).stem for entry in made]


def plain(rng: Rng, folder: Path) -> Input:
    lists = in_lists(entries(rng, folder))
    facts = {"name": "ours", "labels": {"0": "background"}, "numTraining": 3} if rng.random() < 0.5 else {}
    path = write(folder, {**lists, **facts}, encoding=str(rng.choice(["utf-8", "utf-8-sig"])))
    split = str(rng.choice(list(SPLITS)))
    return Input(lambda: datalist(path, split), images(lists[SPLITS[split]]))


def one_list(rng: Rng, folder: Path) -> Input:
    """Of one list every patient is in one split, whatever the seed."""
    made = entries(rng, folder, 20)
    for i, entry in enumerate(made):
        entry["patient"] = int(i // 2)
    path, seed = write(folder, made), int(rng.integers(100))

    def call() -> list[set[str]]:
        return [{item["patient"] for item in datalist(path, split, seed=seed)} for split in ("train", "val")]

    return Input(call, lambda parts: not parts[0] & parts[1] and len(parts[0]) > len(parts[1]))


def no_patients(rng: Rng, folder: Path) -> Input:
    made = entries(rng, folder)
    for entry in made:
        del entry["patient"]
    path = write(folder, in_lists(made))
    return Input(lambda: datalist(path, "train"), lambda found: len({item["patient"] for item in found}) == 3)


def missing_rater(rng: Rng, folder: Path) -> Input:
    made = entries(rng, folder)
    made[0]["label"][rng.integers(2)] = None
    path, wanted = write(folder, in_lists(made)), [name is None for name in made[0]["label"]]
    return Input(lambda: datalist(path, "train"), lambda found: [name is None for name in found[0]["label"]] == wanted)


def own_folds(rng: Rng, folder: Path) -> Input:
    made, fold = entries(rng, folder), int(rng.integers(3))
    for i, entry in enumerate(made):
        entry["fold"] = i % 3
    path = write(folder, made)
    return Input(lambda: datalist(path, "val", fold=fold), images([entry for entry in made if entry["fold"] == fold]))


def idle_rater(rng: Rng, folder: Path) -> Input:
    made = entries(rng, folder)
    for entry in made:
        entry["label"].append(None)
    path = write(folder, in_lists(made))
    return Input(lambda: datalist(path, "train"), images(made[:3]), ("data.json", "rater 2"), told=True)


def further_key(rng: Rng, folder: Path) -> Input:
    made, key = entries(rng, folder), str(rng.choice(["scanner", "age", "subject", "mask", "masks"]))
    made[int(rng.integers(9))][key] = "x"
    path = write(folder, in_lists(made))
    return Input(lambda: datalist(path, "train"), images(made[:3]), ("data.json", key), told=True)


def _spoilt(change: Callable[[Rng, list[dict[str, Any]], Lists], str | None]) -> Callable[[Rng, Path], Input]:
    """Make a kind of a change of sound lists that must be refused, naming what the change returns."""

    def make(rng: Rng, folder: Path) -> Input:
        made = entries(rng, folder)
        lists = in_lists(made)
        name = change(rng, made, lists)
        path = write(folder, lists)
        return Input(lambda: datalist(path, "train"), None, ("data.json", *([name] if name else [])))

    return make


def patient_in_two_lists(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    made[int(rng.integers(3, 9))]["patient"] = "p1"
    return "p1"


def file_in_two_lists(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    other = made[int(rng.integers(3, 9))]
    if rng.random() < 0.5:
        other["image"] = str(rng.choice(["image/0.png", "./image/0.png", "a/../image/0.png"]))
    else:
        other["label"][0] = "a/0.png"
    return "0.png"


def file_twice(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    made[0]["label"][1] = str(rng.choice(["a/0.png", "image/0.png", "a/1.png"]))
    return ".png"


def nobody(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    for entry in made[: int(rng.integers(1, 9))]:
        entry["patient"] = [None, "", " p", 1.5, True, [], {}, float("nan")][rng.integers(8)]
    return "patient"


def some_patients(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    for entry in made[: int(rng.integers(1, 8))]:
        del entry["patient"]
    return "patient"


def _misspelt(rng: Rng, word: str) -> str:
    i = int(rng.integers(1, len(word) - 1))
    return str(
        rng.choice(
            [word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:], word.capitalize(), word + "s", word.upper()]
        )
    )


def misspelt_key(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    old = str(rng.choice(["patient", "label", "image"]))
    entry = made[int(rng.integers(9))]
    new = _misspelt(rng, old)
    entry[new] = entry.pop(old)
    return new


def misspelt_list(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    old = str(rng.choice(["validation", "test"]))
    new = _misspelt(rng, old)
    lists[new] = lists.pop(old)
    return new


def fold_as_text(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    lists.pop("validation")
    for i, entry in enumerate(made[:3]):
        entry["fold"] = [str(i % 2), float(i), None, True][rng.integers(4)]
    return "fold"


def patient_in_two_folds(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    lists.pop("validation")
    for i, entry in enumerate(made[:3]):
        entry |= {"fold": i % 2, "patient": "p1"}
        if i == 2 and rng.random() < 0.5:
            del entry["fold"]
    return "p1"


def null_everywhere(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    made[int(rng.integers(3))]["label"] = [[None, None], [], None, [None]][rng.integers(4)]
    return "case"


def wrong_type(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str | None:
    entry = made[int(rng.integers(3))]
    key = str(rng.choice(["image", "label", "case"]))
    entry[key] = {
        "image": [None, "", 3, {}, [], [None], [""]], "label": ["", 3, {}, ["a/0.png", ""], [["a/0.png"]], [3], True],
        "case": [None, "", 2.5, [], {}],
    }[key][rng.integers(5)]  # fmt: skip
    return key


def missing_file(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> str:
    entry = made[int(rng.integers(3))]
    if rng.random() < 0.5:
        entry["image"] = "image/nowhere.png"
    else:
        entry["label"][0] = "nowhere.png"
    return "nowhere.png"


def case_twice(rng: Rng, made: list[dict[str, Any]], lists: Lists) -> None:
    made[0]["case"], made[1]["case"] = ("x", "x") if rng.random() < 0.5 else ("x/y", "x_y")


def wrong_root(rng: Rng, folder: Path) -> Input:
    content = [[], {}, 3, None, "x", ["a"], {"training": None}, {"training": {}}, {"training": [[]]}, {"train": []}][
        rng.integers(10)
    ]
    path = write(folder, content)
    return Input(lambda: datalist(path, "train"), None, ("data.json",))


def damaged(rng: Rng, folder: Path) -> Input:
    path = write(folder, in_lists(entries(rng, folder)))
    text = path.read_text()
    kind = rng.integers(4)
    if kind == 0:
        path.write_text(text[: int(rng.integers(1, len(text) - 1))])
    elif kind == 1:
        path.write_text(text, encoding="utf-16")
    elif kind == 2:
        path.write_text(text.replace('"validation"', '"training"'))
    else:
        path.write_text("[" * 100_000)
    return Input(lambda: datalist(path, "train"), None, ("data.json",))


KINDS = {
    f"datalist: {make.__name__}": make
    for make in (plain, one_list, no_patients, missing_rater, own_folds, idle_rater, further_key, wrong_root, damaged)
} | {
    f"datalist: {change.__name__}": _spoilt(change)
    for change in (
        patient_in_two_lists, file_in_two_lists, file_twice, nobody, some_patients, misspelt_key, misspelt_list, fold_as_text,
        patient_in_two_folds, null_everywhere, wrong_type, missing_file, case_twice,
    )
}  # fmt: skip
