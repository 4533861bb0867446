import pytest
import torch
from cases_in_memory import item, zeros

from monai_flowssn.transforms.checking import CheckCased


def test_a_good_case_gets_a_small_integer_label_and_keeps_its_meta():
    good = item([[[0.0, 1.0]], [[-1.0, -1.0]]])
    good["label"].meta["key"] = "value"
    label = CheckCased(num_classes=2)(good)["label"]
    assert label.dtype == torch.int8
    assert label.tolist() == [[[0, 1]], [[-1, -1]]]
    assert label.meta["key"] == "value"
    assert CheckCased(num_classes=200)(item([[[199]]]))["label"].dtype == torch.int16


def test_the_item_itself_stays():
    good = item(zeros(1, 2, 2))
    CheckCased(num_classes=2)(good)
    assert good["label"].dtype == torch.float32


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (item(zeros(2, 4, 4), zeros(1, 4, 5)), r"masks have size \(4, 4\), the image \(4, 5\).*resample"),
        (item([[[0.0, 0.25]]]), r"hold \[0.25\].*threshold"),
        (item([[[0.0, float("nan")]]]), r"hold \[nan\]"),
        (item([[[0, 255]]]), r"hold 0 \(1 pixels\), 255 \(1 pixels\), but with num_classes=2 .*--data::class_values"),
        (item([[[0, 2]]]), r"hold 0 \(1 pixels\), 2 \(1 pixels\), .*0 to 1"),
        (item([[[0, -2]]]), r"hold -2 \(1 pixels\), 0 \(1 pixels\)"),
        (item([[[-1, -1]], [[-1, -1]]]), "none of the 2 raters annotated it"),
        (item(zeros(0, 2, 2)), "none of the 0 raters annotated it"),
        (item([[[0, -1]]]), "the mask of rater 0 is -1 in places"),
        (item(zeros(1, 1, 2), torch.tensor([[[0, float("nan")]]])), "NaN"),
        (item(zeros(1, 1, 2), torch.tensor([[[0, float("inf")]]])), "infinite"),
    ],
)
def test_a_bad_case_is_refused_by_name(bad, message):
    with pytest.raises(ValueError, match=f"^Case 'c7': (.|\n)*{message}"):
        CheckCased(num_classes=2)(bad)


def test_the_name_may_come_from_the_meta_data():
    bad = item([[[5]]])
    del bad["case"]
    bad["image"].meta["filename_or_obj"] = "from_meta"
    with pytest.raises(ValueError, match="Case 'from_meta'"):
        CheckCased(num_classes=2)(bad)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="num_classes=1"):
        CheckCased(num_classes=1)


def test_an_intensity_range_that_leaves_nearly_nothing_is_told_once_and_one_that_leaves_nothing_is_refused():
    check = CheckCased(num_classes=2, intensity_range=[0, 255])
    image = torch.full((1, 2, 20), -800.0)
    with pytest.raises(
        ValueError, match=r"^Case 'c7': 100% .* intensity_range=\[0, 255\] .* from -800 to -800. Give --data"
    ):
        check(item(zeros(1, 2, 20), image=image))
    image[..., 0] = 12
    with pytest.warns(UserWarning, match=r"^Case 'c7': 95% of the image lies outside intensity_range=\[0, 255\]"):
        check(item(zeros(1, 2, 20), image=image))
    check(item(zeros(1, 2, 20), image=image))
    with pytest.raises(ValueError, match="100%"):
        check(item(zeros(1, 2, 20), image=torch.full((1, 2, 20), 256.0)))
    for black_or_white in (0.0, 255.0):
        check(item(zeros(1, 2, 2), image=torch.full((1, 2, 2), black_or_white)))
    with pytest.raises(ValueError, match="the first must be below the second"):
        CheckCased(num_classes=2, intensity_range=[400, -1000])


@pytest.mark.parametrize(
    ("values", "stray"),
    [
        ([0, 1, 4], 2),
        ([0, 255], 1),
        ([0, 50, 100], 2),
        ([0, 255], 254),
        ([0, 255], 0.5),
        ([0, 1], float("nan")),
        ([1, 2], 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_a_value_beside_those_of_the_classes_is_refused_with_its_count(values, stray, dtype):
    if not dtype.is_floating_point and not float(stray).is_integer():
        return
    label = torch.tensor([[[*values, stray, stray]]], dtype=dtype)
    check = CheckCased(num_classes=len(values), class_values=values)
    with pytest.raises(ValueError, match=rf"Case 'c7': the masks hold {stray:g} \(2 pixels\), but class_values"):
        check(item(label))
    assert check(item(label[..., : len(values)]))["label"].flatten().tolist() == list(range(len(values)))


def test_class_values_leave_a_missing_rater_missing():
    label = CheckCased(num_classes=2, class_values=[255, 0])(item([[[0, 255]], [[-1, -1]]]))["label"]
    assert label.tolist() == [[[1, 0]], [[-1, -1]]]
    assert label.dtype == torch.int8


@pytest.mark.parametrize("values", [[0], [0, 1, 2], [0, 0], [0, -1]])
def test_class_values_are_one_for_each_class(values):
    with pytest.raises(ValueError, match="give one value for each class"):
        CheckCased(num_classes=2, class_values=values)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([[[0, 256]]]), "256"),  # 0 in a byte
        (torch.tensor([[[0, 2**32]]]), "4.29497e"),
        (torch.tensor([[[0, float("inf")]]]), "inf"),
        (torch.tensor([[[-128, 127]]], dtype=torch.int8), "-128"),
    ],
)
def test_nothing_is_narrowed_before_it_is_looked_at(label, message):
    with pytest.raises(ValueError, match=message):
        CheckCased(num_classes=2)(item(label))


def test_a_label_elsewhere_than_its_image_is_refused():
    """Of a loader that has no files: both say where they lie."""
    there = item(zeros(1, 4, 4))
    there["label"].affine = torch.diag(torch.tensor([-1.0, 1, 1, 1])).double()
    with pytest.raises(ValueError, match="Case 'c7': the label lies elsewhere in space"):
        CheckCased(num_classes=2)(there)
