import math

import pytest
import torch

from monai_flowssn.metrics import iou, iou_table, pairwise_iou

EMPTY, FULL, HALF = [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]


@pytest.mark.parametrize("empty", ["one", "drop", "zero"])
@pytest.mark.parametrize("include_background", [False, True])
def test_agrees_with_a_loop(case, reference, empty, include_background):
    draws, raters, k = case
    got = pairwise_iou(draws, raters, num_classes=k, empty=empty, include_background=include_background)
    classes = range(0 if include_background else 1, k)
    assert got.shape == (2, 5, 3, len(classes))
    for b, n, r in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(3)).tolist():
        missing = (b, r) == (1, 2)
        expected = [math.nan if missing else reference.iou(draws[b, n], raters[b, r], c, empty) for c in classes]
        torch.testing.assert_close(got[b, n, r], torch.tensor(expected), equal_nan=True, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("empty", "both_empty"), [("one", 1.0), ("zero", 0.0), ("drop", math.nan)])
def test_empty_masks(empty, both_empty):
    stack = torch.tensor([[EMPTY, FULL]])
    expected = torch.tensor([[both_empty, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(pairwise_iou(stack, stack, empty=empty)[0, ..., 0], expected, equal_nan=True)


def test_a_missing_map_is_not_an_empty_one():
    raters = torch.tensor([[EMPTY, [-1] * 4]])
    got = pairwise_iou(raters, raters, empty="one")[0, ..., 0]
    torch.testing.assert_close(got, torch.tensor([[1.0, math.nan], [math.nan, math.nan]]), equal_nan=True)


def test_chunks_change_nothing(case, monkeypatch):
    draws, raters, k = case
    whole = pairwise_iou(draws, raters, num_classes=k)
    monkeypatch.setattr(iou, "_CHUNK", 24)  # three pixels at a time
    torch.testing.assert_close(pairwise_iou(draws, raters, num_classes=k), whole, equal_nan=True, atol=0, rtol=0)


def test_autocast_does_not_round_the_counts():
    a = torch.zeros(1, 1, 1003, dtype=torch.int16)
    a[..., :1001] = 1  # bfloat16 knows 1000 and 1004
    b = torch.ones_like(a)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pairwise_iou(a, b).item() == pytest.approx(1001 / 1003, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int64, torch.float32])
def test_types_of_label_maps(dtype):
    draws = torch.tensor([[HALF, FULL]]).to(dtype)
    raters = torch.tensor([[FULL, [-1] * 4]], dtype=torch.int16)
    table = iou_table(draws, raters)
    assert table.cross[0, :, 0, 0].tolist() == [0.5, 1.0]
    assert table.annotated.tolist() == [[True, False]]


def test_table_holds_the_pairwise_ious(case):
    draws, raters, k = case
    table = iou_table(draws, raters, num_classes=k)
    means = table.class_means("one")
    for got, (a, b) in zip(means, [(draws, draws), (draws, raters), (raters, raters)], strict=True):
        expected = pairwise_iou(a, b, num_classes=k).nanmean(-1)
        torch.testing.assert_close(got, expected, equal_nan=True)


def test_table_of_the_first_draws(case):
    draws, raters, k = case
    got = iou_table(draws, raters, num_classes=k).first(3)
    for x, y in zip(got, iou_table(draws[:, :3], raters, num_classes=k), strict=True):
        torch.testing.assert_close(x, y, equal_nan=True)


GOOD = torch.tensor([[EMPTY, FULL]])


@pytest.mark.parametrize(
    ("draws", "raters", "message"),
    [
        (GOOD, torch.zeros(1, 2, 5, dtype=torch.int16), "must agree in B and in"),
        (GOOD, torch.zeros(2, 2, 4, dtype=torch.int16), "must agree in B and in"),
        (GOOD, GOOD * 2, "class id 2, but ids must be below num_classes=2"),
        (GOOD * 3, GOOD, "class id 3"),
        (GOOD - 1, GOOD, "draws are never missing"),
        (GOOD, GOOD - 2, "only -1"),
        (GOOD, torch.full((1, 2, 4), -1), "case 0 of the batch: none of the 2 raters"),
        (GOOD, torch.tensor([[FULL, [-1, 1, 1, 1]]]), "case 0 of the batch: the mask of rater 1 is -1 in places"),
        (GOOD * 0.5, GOOD, "fractions or NaN"),
        (GOOD, GOOD * math.nan, "fractions or NaN"),
        (GOOD[0], GOOD, "must be non-empty"),
        (GOOD[:, :0], GOOD, "must be non-empty"),
    ],
)
def test_bad_input(draws, raters, message):
    with pytest.raises(ValueError, match=message):
        iou_table(draws, raters)


def test_bad_options():
    with pytest.raises(ValueError, match="num_classes=1; it must be a whole number from 2"):
        pairwise_iou(GOOD, GOOD, num_classes=1)
    with pytest.raises(ValueError, match="empty is 'two'; choose one of 'one', 'drop', 'zero'"):
        pairwise_iou(GOOD, GOOD, empty="two")
