"""What a network sees of a data set."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Spacingd

from monai_flowssn.transforms import RandDihedrald, ScaleOwnRanged
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
    kept = {"data::folds": None, "data::fold": 0, "data::train_rater": 1, "data::intensity_range": [0, 10]}
    assert data(train_rater=1).kept == {**kept, "data::class_values": ()}


def test_a_window_of_training_is_off_the_centre_by_the_jitter_at_most():
    places = torch.arange(20.0 * 16).reshape(1, 20, 16)
    seen = set()
    for seed in range(250):
        chain = Compose(data(jitter=2, intensity_range=[0, 319]).training([8, 8])).set_random_state(seed)
        item = {**case(20, 16), "image": MetaTensor(places.clone())}
        first = round((float(chain(item)["image"][0, 0, 0]) + 1) / 2 * 319)
        seen.add((first // 16 - 6, first % 16 - 4))
    assert seen == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    small = Compose(data(jitter=2).training([8, 8]))(case(6, 9))
    assert small["image"].shape == (1, 8, 8)
    with pytest.raises(ValueError, match="jitter is -1"):
        data(jitter=-1)


@pytest.mark.parametrize("crops", ["centre", "anywhere"])
def test_inference_sees_the_window_around_a_point_scaled_by_what_is_around_it(crops):
    image = MetaTensor(torch.zeros(1, 20, 16))
    image[0, 3, 4], image[0, 7, 4], image[0, 19, 15] = 10, 40, 99  # in the window, in its context, far away
    facts = data(crops=crops, intensity_range=None, context=[10, 10] if crops == "centre" else None)
    seen = Compose(facts.inference([4, 4], None))({"image": image, "point": [3, 4], "case": "a"})["image"]
    assert seen.shape == (1, 4, 4)
    highest = 40 if crops == "centre" else 99
    assert seen.max() == seen[0, 2, 2] == pytest.approx(20 / highest - 1)
    whole = Compose(facts.inference([4, 4], None))({"image": image, "case": "a"})["image"]
    assert whole.shape[1:] == ((4, 4) if crops == "centre" else (20, 16))
    with pytest.raises(RuntimeError) as error:
        Compose(data(crops="whole").inference([4, 4], None))({"image": image, "point": [3, 4], "case": "a"})
    assert "this model sees whole images" in str(error.value.__cause__)


def test_a_file_is_drawn_instead_of_the_data_set():
    facts = data()
    assert facts.items("test", image="a.png", point=[1, 2]) == [{"image": "a.png", "patient": "a.png", "point": [1, 2]}]
    assert [item["image"] for item in facts.items("test", image=["a.png", "b.png"])] == ["a.png", "b.png"]
    assert facts.items("test", point=[1, 2])[0]["point"] == [1, 2]


def test_slices_of_a_volume_have_each_their_own_range_for_a_2d_network():
    volume = torch.stack([torch.linspace(0, top, 9).view(3, 3) for top in (1.0, 10.0)], dim=-1)[None]
    for dims, highest in ((2, [1.0, 1.0]), (3, [-0.8, 1.0])):
        scaled = ScaleOwnRanged("image", spatial_dims=dims)({"image": volume})["image"]
        torch.testing.assert_close(scaled.amax((0, 1, 2)), torch.tensor(highest))
        torch.testing.assert_close(scaled.amin((0, 1, 2)), torch.tensor([-1.0, -1.0]))


def test_cases_without_masks_are_left_out_of_an_evaluation_and_counted():
    made = [
        {"image": torch.zeros(1, 4, 4), "label": None if i == 1 else torch.zeros(1, 4, 4), "case": f"c{i}"}
        for i in range(3)
    ]
    with pytest.warns(UserWarning, match="1 of 3 cases of test have no masks .*c1.* and are left out"):
        kept = data(cases=lambda **_: made).annotated("test")
    assert [case["case"] for case in kept] == ["c0", "c2"]
    with pytest.raises(ValueError, match="1 of 1 cases of test have no masks .*nothing to compare draws with"):
        data(cases=lambda **_: made[1:2]).annotated("test")
