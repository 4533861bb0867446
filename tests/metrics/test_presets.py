import pytest
import torch

from monai_flowssn.metrics import (
    PRESETS,
    Comparison,
    compute_average_iou,
    compute_dice,
    compute_diversity,
    compute_ece,
    compute_ged,
    compute_hm_iou,
    compute_ncc,
    compute_nll,
    evaluate_preset,
    presets,
)


@pytest.fixture
def batch():
    """Label maps, raters and soft draws of two cases."""
    generator = torch.Generator().manual_seed(2)
    pred = (3 * torch.randn(2, 6, 2, 5, 5, generator=generator)).softmax(2)
    raters = torch.randint(0, 2, (2, 4, 5, 5), generator=generator)
    raters[1, 1] = -1
    return pred.argmax(2), raters, pred


def test_all_published_protocols_are_there():
    names = {"flow_ssn", "phiseg", "ssn", "kohl", "nf_punet_excl", "nf_punet_incl", "cflow", "dpersona", "cfm"}
    assert set(PRESETS) == names | {"standard"}


def test_every_key_is_the_function_it_names(batch):
    draws, raters, pred = batch
    got = {}
    for name in PRESETS:
        got |= evaluate_preset(name, draws, raters, pred=pred)
    mean = pred.mean(1)
    expected = {
        "ged_v_one": compute_ged(draws, raters),
        "ged_u_one": compute_ged(draws, raters, estimator="u"),
        "ged_v_drop": compute_ged(draws, raters, empty="drop"),
        "ged_v_zero": compute_ged(draws, raters, empty="zero"),
        "diversity_v_one": compute_diversity(draws),
        "hm_iou_duplicate_one": compute_hm_iou(draws, raters),
        "hm_iou_duplicate_drop": compute_hm_iou(draws, raters, empty="drop"),
        "hm_iou_best_one": compute_hm_iou(draws, raters, matching="best"),
        "hm_iou_best_zero": compute_hm_iou(draws, raters, matching="best", empty="zero"),
        "average_iou_one": compute_average_iou(draws, raters),
        "average_iou_drop": compute_average_iou(draws, raters, empty="drop"),
        "dice_majority_one": compute_dice(draws, raters, mean=mean),
        "dice_per_rater_drop": compute_dice(draws, raters, kind="per_rater", mean=mean),
        "dice_single_one": compute_dice(draws, raters, kind="single", mean=mean),
        "nll": compute_nll(pred, raters),
        "ece_10": compute_ece(pred, raters, num_bins=10),
        "ncc": compute_ncc(pred, raters),
    }
    assert set(got) == set(expected)
    for key, value in expected.items():
        assert value.shape == (2,)
        torch.testing.assert_close(got[key], value, equal_nan=True, msg=key)


def test_the_ious_are_computed_once(batch, monkeypatch):
    draws, raters, pred = batch
    calls = []
    real = presets.iou_table
    monkeypatch.setattr(presets, "iou_table", lambda *a, **k: calls.append(1) or real(*a, **k))
    Comparison(draws, raters, pred).evaluate(PRESETS["standard"].choices)
    assert len(calls) == 1


def test_classes_and_background_reach_every_metric(batch):
    draws, raters, pred = batch
    pred = torch.cat([pred, torch.zeros_like(pred[:, :, :1])], 2)
    got = evaluate_preset("standard", draws, raters, pred=pred, num_classes=3, include_background=True)
    options = {"num_classes": 3, "include_background": True}
    torch.testing.assert_close(got["ged_v_one"], compute_ged(draws, raters, **options))
    torch.testing.assert_close(got["dice_majority_one"], compute_dice(draws, raters, mean=pred.mean(1), **options))
    torch.testing.assert_close(got["ece_10"], compute_ece(pred, raters, include_background=True))


def test_bad_input(batch):
    draws, raters, _ = batch
    with pytest.raises(ValueError, match="preset is 'unet'; choose one of"):
        evaluate_preset("unet", draws, raters)
    with pytest.raises(ValueError, match="need soft draws"):
        evaluate_preset("phiseg", draws, raters)
