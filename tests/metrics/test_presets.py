import pytest
import torch

from monai_flowssn.metrics import (
    PRESETS,
    Comparison,
    comparison,
    compute_average_iou,
    compute_collective_insight,
    compute_crps,
    compute_dice,
    compute_diversity,
    compute_ece,
    compute_existence,
    compute_ged,
    compute_hm_iou,
    compute_ncc,
    compute_nll,
    compute_thresholded,
    evaluate_preset,
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
    assert set(PRESETS) == names | {"p2sam", "ccdm", "mose", "standard", "extended"}
    for name, preset in PRESETS.items():
        assert bool(preset.code) == (name not in ("standard", "extended"))


FUNCTIONS = {
    "ged": compute_ged,
    "diversity": lambda draws, raters, **options: compute_diversity(draws, **options),
    "hm_iou": compute_hm_iou,
    "average_iou": compute_average_iou,
    "crps": compute_crps,
    "existence": compute_existence,
    "insight": compute_collective_insight,
    "nll": compute_nll,
    "ece": compute_ece,
    "ncc": compute_ncc,
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_key_is_the_function_it_names(batch, name):
    draws, raters, pred = batch
    got = evaluate_preset(name, draws, raters, pred=pred)
    choices = PRESETS[name].choices
    assert len(got) == len(choices)
    for choice in choices:
        options = dict(choice.options)
        if choice.metric == "dice":
            mean = None if options.pop("fusion", "mean") == "vote" else pred.mean(1)
            value = compute_dice(draws, raters, mean=mean, **options)
        elif choice.metric == "thresholded":
            value = compute_thresholded(pred.mean(1), raters, **options)
        else:
            soft = choice.metric in ("nll", "ece", "ncc")
            value = FUNCTIONS[choice.metric](pred if soft else draws, raters, **options)
        assert len(value) == 2
        torch.testing.assert_close(got[choice.key], value, equal_nan=True, msg=choice.key)


def test_the_ious_are_computed_once(batch, monkeypatch):
    draws, raters, pred = batch
    calls = []
    real = comparison.iou_table
    monkeypatch.setattr(comparison, "iou_table", lambda *a, **k: calls.append(1) or real(*a, **k))
    whole = Comparison(draws, raters, pred)
    for n in (6, 3):
        whole.first(n).evaluate(PRESETS["standard"].choices)
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


def test_an_evaluation_gives_the_published_numbers_of_draws_that_it_has():
    preset = PRESETS["ccdm"]
    assert preset.draws == (16, 32, 50, 100)
    assert preset.draws_within(50) == [16, 32, 50]
    assert preset.draws_within(4) == [4]
