import pytest
import torch
from cases_in_memory import item, zeros
from monai.data import MetaTensor, list_data_collate

from monai_flowssn.transforms.raters import KeepRaterd, PadRatersd


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_cases_with_different_raters_make_one_batch(dtype):
    pad = PadRatersd("label", raters=4, spatial_dims=2)
    batch = list_data_collate([pad(item(zeros(r, 3, 2, dtype=dtype))) for r in (1, 3, 4)])
    assert batch["label"].shape == (3, 4, 3, 2)
    assert (batch["label"] == -1).flatten(2).all(2).sum(1).tolist() == [3, 1, 0]


def test_meta_survives():
    padded = PadRatersd("label", raters=3, spatial_dims=3)(item(zeros(1, 3, 2, 2, dtype=torch.int8)) | {})["label"]
    assert isinstance(padded, MetaTensor)
    assert padded.dtype == torch.int8


def test_what_makes_no_batch_is_refused():
    with pytest.raises(ValueError, match="Case 'c7' has 3 raters, but raters=2"):
        PadRatersd("label", raters=2, spatial_dims=2)(item(zeros(3, 2, 2)))
    with pytest.raises(ValueError, match=r"size \(3, 2, 2\), the network spatial_dims=2"):
        PadRatersd("label", raters=2, spatial_dims=2)(item(zeros(1, 3, 2, 2)))
    with pytest.raises(ValueError, match="raters=0"):
        PadRatersd("label", raters=0, spatial_dims=2)


def test_one_rater_or_all():
    label = torch.arange(3)[:, None, None].expand(3, 2, 2)
    assert torch.equal(KeepRaterd("label", rater=1)(item(label))["label"], label[1:2])
    assert torch.equal(KeepRaterd("label")(item(label))["label"], label)


@pytest.mark.parametrize("rater", [-1, 1, 3])
def test_a_rater_without_a_mask_is_named(rater):
    label = torch.zeros(3, 2, 2).long()
    label[1] = -1
    with pytest.raises(ValueError, match=f"Case 'c7' has no mask of rater {rater} .3 raters"):
        KeepRaterd("label", rater=rater)(item(label))


def test_the_first_rater_is_number_zero_and_none_counts_from_the_end():
    label = torch.arange(3)[:, None, None].expand(3, 2, 2)
    assert torch.equal(KeepRaterd("label", rater=0)(item(label))["label"], label[:1])
    for rater in (-2, -3):
        with pytest.raises(ValueError, match="choose a rater who annotated every case, or leave the case out"):
            KeepRaterd("label", rater=rater)(item(label))


def test_one_rater_is_enough_and_bytes_become_int16_where_one_is_missing():
    one = zeros(1, 3, 2, dtype=torch.uint8)
    assert PadRatersd("label", raters=1, spatial_dims=2)(item(one))["label"].dtype == torch.uint8
    padded = PadRatersd("label", raters=2, spatial_dims=2)(item(one))["label"]
    assert padded.dtype == torch.int16
    assert padded[1].unique().tolist() == [-1]
