"""What every loader must do, as a check that anybody's loader can be put to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor

from monai_flowssn.annotations import MAX_CLASSES, check_labels
from monai_flowssn.data.cases import Case, case_title
from monai_flowssn.data.geometry import check_affine, check_same_place, whole_affine
from monai_flowssn.data.manifest import fingerprint
from monai_flowssn.data.reading import load_case
from monai_flowssn.data.splits import SPLITS

__all__ = ["check_loader"]

Loader = Callable[..., list[Case]]


def check_loader(loader: Loader, root: Any, *, folds: int = 3, **options: Any) -> None:
    """Put a loader to the contract of all loaders, on data that has a case for every split and fold.

    A loader is a function ``(root, split, *, limit=None, seed=0, folds=None, fold=0)`` that returns a list of `cases.Case` for
    "train", "val" and "test". It is checked that

    - every case has image (C, *S) and label (R, *S) on one grid, or files that read so, a patient, and a name that no other has;
    - images are finite, labels are class ids, -1 everywhere where a rater is missing, and some rater is there;
    - geometry travels: affines are (4, 4), finite, invertible, and the same for image and label;
    - no patient is in two splits, or in two folds, of which each tests every case once;
    - the same call gives the same cases, ``limit`` gives as many, and another split is refused.

    Args:
        loader: the function.
        root: folder or file with its data.
        folds: number of folds to try.
        options: of the loader, given in every call.

    Raises:
        ValueError: that says which rule is broken, by what, and how to mend it.

    Example:
        >>> from monai_flowssn.data import kvasir
        >>> check_loader(kvasir, "/nowhere")
        Traceback (most recent call last):
        ...
        ValueError: /nowhere has no images/*.jpg; give the folder Kvasir-SEG with its images/ and masks/.
    """
    name = getattr(loader, "__name__", repr(loader))
    splits = {split: loader(root, split, **options) for split in SPLITS}
    for split, cases in splits.items():
        _check_cases(cases, f"{name}, split '{split}'")
        if fingerprint(loader(root, split, **options)) != fingerprint(cases):
            raise ValueError(
                f"{name}: two calls for '{split}' gave different cases; draw from a generator of the given seed."
            )
        if len(loader(root, split, limit=1, **options)) != 1:
            raise ValueError(
                f"{name}: limit=1 gave no single case of '{split}'; keep at most `limit` (cases.pick_evenly)."
            )
    _check_apart(splits, name)
    _check_folds(loader, root, splits, folds, options)
    try:
        loader(root, "holdout", **options)
    except ValueError:
        return
    raise ValueError(
        f"{name} accepts the split 'holdout'; refuse what is none of {SPLITS} by a ValueError (splits.Split)."
    )


def _check_cases(cases: Sequence[Case], where: str) -> None:
    if not isinstance(cases, list) or not cases:
        raise ValueError(f"{where} is {type(cases).__name__} of {len(cases)}; return a list with at least one case.")
    names = [case.get("case") for case in cases]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{where}: two cases are named {twice!r}; give each its own name.")
    for case in cases:
        _check_case(case, where)


def _check_case(case: Case, where: str) -> None:
    title = f"{where}: {case_title(case)}"
    for key in ("patient", "case"):
        if not isinstance(case.get(key), str) or not case[key]:
            raise ValueError(f"{title} has the {key} {case.get(key)!r}; it must be a text.")
    if "image" not in case or "label" not in case:
        raise ValueError(f"{title} has {sorted(case)}; it needs 'image' and 'label'.")
    loaded = load_case(case)
    image, label = loaded["image"], loaded["label"]
    if not isinstance(image, MetaTensor) or not isinstance(label, MetaTensor):
        raise ValueError(f"{title} has plain tensors, which know no geometry; wrap them by cases.make_case.")
    if image.ndim not in (3, 4) or image.shape[1:] != label.shape[1:] or 0 in image.shape:
        raise ValueError(
            f"{title} has image {tuple(image.shape)} and label {tuple(label.shape)}; they must be (C, *S) and (R, *S) with the "
            "same *S of 2 or 3 axes."
        )
    if not torch.isfinite(image.as_tensor().float()).all():
        raise ValueError(f"{title}: the image has NaN or infinite values; correct or leave out the case.")
    try:
        annotated = check_labels(label[None], "masks", MAX_CLASSES)[0].flatten(1) >= 0
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error
    if not annotated.any() or not torch.equal(annotated.any(1), annotated.all(1)):
        raise ValueError(
            f"{title}: no rater annotated it, or a mask is -1 in places; -1 fills the mask of a missing rater."
        )
    if image.affine.shape != (4, 4):
        raise ValueError(
            f"{title} has an affine of shape {tuple(image.affine.shape)}; make it (4, 4) by cases.make_case."
        )
    affine, other = whole_affine(image.affine), whole_affine(label.affine)
    check_affine(affine, image.ndim - 1, title)
    check_same_place(other, affine, image.shape[1:], f"{title}: the label")


def _check_apart(parts: dict[str, list[Case]], name: str) -> None:
    for key, rule in (("patient", "keep a patient together"), ("case", "give each case its own name")):
        seen: dict[str, str] = {}
        for part, cases in parts.items():
            for value in {case[key] for case in cases}:  # type: ignore[literal-required]
                if value in seen:
                    raise ValueError(
                        f"{name}: {key} '{value}' is in '{seen[value]}' and '{part}'; {rule} (splits.Split)."
                    )
                seen[value] = part


def _check_folds(loader: Loader, root: Any, splits: dict[str, list[Case]], folds: int, options: dict[str, Any]) -> None:
    name = getattr(loader, "__name__", repr(loader))
    everything = {case["case"] for cases in splits.values() for case in cases}
    tested: list[str] = []
    for fold in range(folds):
        parts = {split: loader(root, split, folds=folds, fold=fold, **options) for split in SPLITS}
        _check_apart(parts, f"{name}, fold {fold} of {folds}")
        tested += [case["case"] for case in parts["test"]]
    if sorted(tested) != sorted(everything):
        raise ValueError(
            f"{name}: {folds} folds test {len(tested)} cases, {len(set(tested))} of them different, of {len(everything)}; every "
            "case must be tested once (splits.Split)."
        )
