"""What a network sees of a data set."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Spacingd

from monai_flowssn.transforms import RandDihedrald
from monai_flowssn.workflows import Data

FACTS = {"name": "toy", "channels": 1, "num_classes": 2, "raters": 3, "intensity_range": [0, 10]}


def data(**facts):
    return Data(**{**FACTS, "cases": lambda **asked: [asked], **facts})


def case(*size):
    label = torch.zeros(2, *size, dtype=torch.uint8)
    label[(slice(None), *(slice(1, 3) for _ in size))] = 1  # away from the centre
    image = MetaTensor(torch.full((1, *size), 5.0))
    return {"image": image, "label": MetaTensor(label), "case": "a", "patient": "p", "mask": torch.ones(1)}


def test_a_data_set_is_asked_for_its_folds():
    asked = {"split": "val", "limit": 3, "folds": 5, "fold": 2}
    assert data(folds=5, fold=2).items("val", 3) == [asked]
    assert data(folds=5, fold=2).fold_dir == "/fold_2"
    assert data().fold_dir == ""


@pytest.mark.parametrize(
    ("crops", "marked", "inferred"), [("centre", 0, (8, 8)), ("anywhere", 4, (20, 16)), ("whole", None, (8, 8))]
)
def test_what_training_sees_the_others_see(crops, marked, inferred):
    facts = data(crops=crops)
    for chain in (facts.training([8, 8]), facts.validation([8, 8]), facts.evaluation([8, 8], None)):
        seen = Compose(chain)(case(20, 16))
        assert seen["image"].shape == (1, 8, 8)
        assert seen["image"].max() == 0  # 5 of 0 to 10
        assert seen["label"].shape == (3, 8, 8)
        assert (seen["label"][2] == -1).all()
        assert set(seen) == {"image", "label", "case", "patient"}
    if marked is not None:
        assert (seen["label"][0] > 0).sum() == marked
    assert Compose(facts.evaluation([8, 8], window=[8, 8]))(case(20, 16))["image"].shape == (1, 20, 16)
    without = {"image": case(20, 16)["image"]}
    assert Compose(facts.inference([8, 8], None))(without)["image"].shape[1:] == inferred
    assert Compose(facts.inference([8, 8], [8, 8]))(without)["image"].shape[1:] == (20, 16)


def test_only_training_augments_and_keeps_one_rater():
    facts = data(augmentation=[RandDihedrald(["image", "label"])], train_rater=1)
    seen = Compose(facts.training([8, 8]))(case(8, 8))
    assert not isinstance(seen["image"], MetaTensor)
    assert [bool((mask == -1).all()) for mask in seen["label"]] == [False, True, True]
    for chain in (facts.validation([8, 8]), facts.inference([8, 8], None)):
        assert not any(isinstance(each, RandDihedrald) for each in chain)
    assert (Compose(facts.validation([8, 8]))(case(8, 8))["label"][:2] >= 0).all()


def test_files_of_other_values_and_other_voxels():
    facts = data(
        class_values=[0, 255], geometry=[Spacingd(["image", "label"], [2.0, 2.0], mode=["bilinear", "nearest"])]
    )
    item = case(16, 16)
    item["label"] = item["label"] * 255
    seen = Compose(facts.validation([8, 8]))(item)
    assert seen["image"].shape == (1, 8, 8)
    assert set(seen["label"].unique().tolist()) == {-1, 0, 1}


def test_a_choice_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="crops is 'center'; choose one of 'centre', 'anywhere', 'whole'"):
        data(crops="center")
    with pytest.raises(TypeError, match="crop"):
        data(crop="whole")


def test_what_must_stay_is_named_as_the_option_it_is():
    fixed = {"data::folds": None, "data::fold": 0, "data::train_rater": 1, "data::intensity_range": [0, 10]}
    assert data(train_rater=1).fixed == {**fixed, "data::class_values": ()}
