from itertools import chain

import pytest

from monai_flowssn.data.splits import SPLITS, fold_patients, split_patients

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
