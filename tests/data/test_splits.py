from itertools import chain

import pytest

from monai_flowssn.data.splits import SPLITS, Split, fold_patients, rotate_folds, split_patients

PATIENTS = [f"p{i}" for i in range(40)]


def test_every_patient_is_in_exactly_one_split():
    parts = split_patients(PATIENTS * 3)
    assert tuple(parts) == SPLITS
    assert sorted(chain(*parts.values())) == sorted(PATIENTS)
    assert [len(part) for part in parts.values()] == [28, 6, 6]


def test_order_and_repetition_do_not_matter_but_the_seed_does():
    assert split_patients(PATIENTS) == split_patients([*reversed(PATIENTS), "p1"])
    assert split_patients([1, 2, 3]) == split_patients(["3", "2", "1"])
    assert split_patients(PATIENTS) != split_patients(PATIENTS, seed=1)


def test_the_same_in_every_process_and_version():
    parts = split_patients(range(8))
    assert (parts["val"], parts["test"]) == (["7"], ["1"])


def test_folds_are_disjoint_and_complete():
    folds = fold_patients(PATIENTS, 7)
    assert sorted(chain(*folds)) == sorted(PATIENTS)
    assert {len(fold) for fold in folds} == {5, 6}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="sum 1"):
        split_patients(PATIENTS, fractions=fractions)


@pytest.mark.parametrize("k", [1, 41])
def test_wrong_number_of_folds_is_refused(k):
    with pytest.raises(ValueError, match="choose 2 <= k"):
        fold_patients(PATIENTS, k)


def test_folds_rotate_so_that_each_tests_and_validates_once():
    folds = [[f"{fold}{i}" for i in range(2)] for fold in range(5)]
    parts = [rotate_folds(folds, fold) for fold in range(5)]
    assert [part["test"] for part in parts] == folds
    assert [part["val"] for part in parts] == [*folds[1:], folds[0]]
    for part in parts:
        assert sorted(chain(*part.values())) == sorted(chain(*folds))


@pytest.mark.parametrize("own", [False, True])
def test_a_split_of_folds_deals_all_patients_whatever_the_source_says(own):
    patients = {"train": PATIENTS[:30], "val": PATIENTS[30:35], "test": PATIENTS[35:]} if own else PATIENTS
    folds = fold_patients(PATIENTS, 10, seed=3)
    for fold in range(10):
        parts = {name: Split(name, folds=10, fold=fold, seed=3).patients(patients) for name in SPLITS}
        assert parts == {name: set(part) for name, part in rotate_folds(folds, fold).items()}


def test_without_folds_the_source_decides_else_the_seeded_split():
    assert Split("val").patients({"train": [1], "val": [2, 3]}) == {"2", "3"}
    assert Split("val").patients({"train": [1]}) == set()
    assert Split("val", seed=1).patients(PATIENTS) == set(split_patients(PATIENTS, seed=1)["val"])
    halves = Split("test").patients(PATIENTS, fractions=(0.5, 0, 0.5))
    assert halves == set(split_patients(PATIENTS, fractions=(0.5, 0, 0.5))["test"])
    assert (Split("val").sources, Split("val", folds=3).sources) == (("val",), SPLITS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "all"}, "split='all'"),
        ({"fold": 1}, "fold=1 without folds"),
        ({"folds": 2}, "folds >= 3"),
        ({"folds": 5, "fold": 5}, "fold=5"),
        ({"folds": 5, "fold": -1}, "fold=-1"),
    ],
)
def test_wrong_splits_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Split(**{"name": "train", **options})
