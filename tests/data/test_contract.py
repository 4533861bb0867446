"""The contract of loaders, held against a loader that breaks one rule at a time."""

import numpy as np
import pytest
import torch

from monai_flowssn.data import check_loader, make_case, spacing_affine
from monai_flowssn.data.splits import Split


def case(number, **changes):
    arrays = {"image": np.full((1, 6, 5), number, np.float32), "label": np.eye(6, 5, dtype=np.uint8)[None]}
    return make_case(
        **{**arrays, "patient": f"p{number // 2}", "case": f"c{number}", "affine": spacing_affine(0.7, 0.6), **changes}
    )


def toy(root, split, *, limit=None, seed=0, folds=None, fold=0):
    """A stranger's loader: sixteen cases of eight patients."""
    kept = Split(split, folds=folds, fold=fold, seed=seed).patients(f"p{i // 2}" for i in range(16))
    return [case(i) for i in range(16) if f"p{i // 2}" in kept][:limit]


def test_a_loader_that_keeps_the_contract_passes():
    check_loader(toy, "anywhere")


def changed(change):
    """The toy with its cases changed."""
    return lambda *args, **options: [change(each) for each in toy(*args, **options)]


def but(**entries):
    return changed(lambda each: each | entries)


def elsewhere(each):
    each["label"].affine = torch.eye(4).double()
    return each


def soft(each):
    return each | case(0, label=np.full((1, 6, 5), 0.5, np.float32)) | {key: each[key] for key in ("patient", "case")}


COUNT = iter(range(10**6))


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda *args, **options: tuple(toy(*args, **options)), "return a list"),
        (lambda *args, **options: [], "at least one case"),
        (lambda *args, **options: toy(*args, **options) * 2, "two cases are named"),
        (but(patient=3), "has the patient 3; it must be a text"),
        (changed(lambda each: {k: v for k, v in each.items() if k != "label"}), "needs 'image' and 'label'"),
        (but(image=torch.zeros(1, 6, 5)), "plain tensors"),
        (but(image=case(0, image=np.zeros((1, 6, 4), np.float32))["image"]), "the same .S"),
        (but(image=case(0, image=np.full((1, 6, 5), np.nan, np.float32))["image"]), "NaN"),
        (changed(soft), "masks hold fractions"),
        (but(label=case(0, label=np.full((2, 6, 5), -1, np.int16))["label"]), "no rater annotated it"),
        (changed(elsewhere), "the label lies elsewhere in space"),
        (
            changed(lambda each: each | case(next(COUNT)) | {"patient": each["patient"], "case": each["case"]}),
            "two calls",
        ),
        (lambda root, split, limit=None, **options: toy(root, split, **options), "limit=1 gave no single case"),
        (but(patient="everybody"), "patient 'everybody' is in 'train' and 'val'"),
        (
            lambda root, split, limit=None, folds=None, fold=0: toy(root, split, limit=limit),
            r"3 folds test \d+ cases, 2 of them",
        ),
        (
            lambda root, split, **options: toy(root, split if split != "holdout" else "test", **options),
            "accepts the split",
        ),
    ],
)
def test_each_broken_rule_is_named(loader, message):
    with pytest.raises(ValueError, match=message):
        check_loader(loader, "anywhere")
