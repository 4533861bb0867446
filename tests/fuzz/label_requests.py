"""Requests of MONAI Label clients: what is asked for is what is drawn, or refused with what may be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fuzz.judge import Input
from fuzz.pictures import Rng

from monai_flowssn.label.requests import check_request, clicked, parsed, refuse_config, refuse_path

CONTROLS = {"draws": 16, "output": ["majority", "draw", "entropy", "mutual_information", "draws"], "draw": 1}
MODELS = ["model.pt", "model_20240101-120000.pt"]


def ask(text: str) -> dict[str, Any]:
    """What a server does with the parameters of a request before it draws."""
    request = parsed(text)
    check_request(request, CONTROLS, MODELS)
    point = clicked(request)
    return request if point is None else {**request, "point": point}


def plain(rng: Rng, folder: Path) -> Input:
    request: dict[str, Any] = {"client": "x", "device": "cpu"}
    offered = {
        "draws": int(rng.integers(1, 200)), "output": CONTROLS["output"][rng.integers(5)], "draw": int(rng.integers(1, 9)),
        "model_filename": MODELS[rng.integers(2)], "result_extension": ".nrrd", "output ": CONTROLS["output"],
        "foreground": [rng.integers(0, 99, int(rng.integers(2, 4))).tolist()],
    }  # fmt: skip
    for name in rng.permutation(list(offered))[: int(rng.integers(0, 6))]:
        request[str(name).strip()] = offered[str(name)]
    text = json.dumps(request, ensure_ascii=bool(rng.integers(2)))
    point = {"point": request["foreground"][0]} if "foreground" in request else {}
    return Input(lambda: ask(text), lambda found: found == {**request, **point})


def _other(rng: Rng) -> Any:
    values = [
        0,
        -1,
        2.5,
        True,
        "4",
        None,
        [],
        [4],
        {},
        {"a": 1},
        "NaN",
        float("nan"),
        float("inf"),
        10**400,
        "",
        [[1]],
        2**31,
    ]
    return values[rng.integers(len(values))]


def control(rng: Rng, folder: Path) -> Input:
    name = str(rng.choice(["draws", "draw"]))
    text = json.dumps({name: _other(rng)})
    return Input(lambda: ask(text), None, (name,))


def choice(rng: Rng, folder: Path) -> Input:
    name = str(rng.choice(["output", "model_filename", "result_extension"]))
    value = [3, "x", "../model.pt", ["x"], {}, "MAJORITY", ".exe", ".nii.gz/..", True, 1.5, "model.pt\0"][
        rng.integers(11)
    ]
    text = json.dumps({name: value})
    return Input(lambda: ask(text), None, (name,))


def misspelt(rng: Rng, folder: Path) -> Input:
    name = str(rng.choice(["drawss", "Draws", "outputt", "ouput", "model_filname", "result_extention"]))
    text = json.dumps({name: "entropy" if name[0] == "o" else 4})
    return Input(lambda: ask(text), None, (name,))


def point(rng: Rng, folder: Path) -> Input:
    values = [3, "x", [[1]], [[1, 2, 3, 4]], [[1, 2], [3, 4]], [1, 2, 3], [["1", "2"]], [[1.5, 2]], [[-1, 2]], [[True, 2]],
    {"x": 1}, [[[1, 2]]],
              [[None, 2]], [{}]]  # fmt: skip
    request = {"foreground": values[rng.integers(len(values))]}
    if rng.random() < 0.2:
        request = {"foreground": [[1, 2]], "background": [[3, 4]]}
    text = json.dumps(request)
    return Input(lambda: ask(text), None, ("foreground",))


def expression(rng: Rng, folder: Path) -> Input:
    """What MONAI would evaluate, at any depth, as a key or a value."""
    bad: Any = str(rng.choice(["$1+1", "@draws", "%a.json::b", " $exit()", "\t@x", "_target_", "\u00a0$x"]))
    for _ in range(int(rng.integers(0, 5))):
        bad = [[bad], {"a": bad}, {str(bad) if isinstance(bad, str) else "k": bad}][rng.integers(3)]
    text = json.dumps({"client": bad})
    return Input(lambda: ask(text), None)


def no_object(rng: Rng, folder: Path) -> Input:
    texts = [
        "[1]",
        "3",
        "null",
        '"x"',
        "{",
        "{'draws': 4}",
        "draws=4",
        "\0",
        "[" * 100_000,
        '{"a":' * 50_000,
        "{} {}",
        "nan",
        "\ufeff{}",
    ]
    text = texts[rng.integers(len(texts))]
    return Input(lambda: ask(text), None, ("params",))


def name(rng: Rng, folder: Path) -> Input:
    bad = str(rng.choice(["../x", "a/b", ".hidden", "a\\b", "..", "a\0b", "/etc/passwd", "./x"]))
    return Input(lambda: refuse_path(bad), None, (repr(bad),))


def name_plain(rng: Rng, folder: Path) -> Input:
    good = str(rng.choice(["patient 1", "é", "a.b", "x-1_2", "[CT]", "a#b"]))
    return Input(lambda: (refuse_path(good), refuse_config(good)), lambda found: True)


KINDS = {
    f"request: {make.__name__}": make
    for make in (plain, control, choice, misspelt, point, expression, no_object, name, name_plain)
}
