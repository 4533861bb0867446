"""What every metric asks of probabilities and of the number of classes, before it computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from monai_flowssn.metrics import (
    CaseMetric,
    compute_dice,
    compute_ece,
    compute_ged,
    compute_ncc,
    compute_nll,
    compute_thresholded,
    effective_rank,
    evaluate_preset,
    existence_curve,
)

RATERS = torch.tensor([[[0, 1, 1, 0], [0, 1, 0, 0]]])
P = torch.tensor([0.25, 0.75, 0.5, 0.0])
DRAWS = torch.stack([1 - P, P]).expand(1, 3, 2, 4)
LABELS = DRAWS.argmax(2)


def of_draws(pred: torch.Tensor) -> list[Callable]:
    """The functions of soft draws (B, N, K, *S)."""
    functions = [lambda f=f: f(pred, RATERS) for f in (compute_nll, compute_ece, compute_ncc)]
    return [
        *functions,
        lambda: CaseMetric("ged")(pred, RATERS),
        lambda: evaluate_preset("standard", LABELS, RATERS, pred=pred),
    ]


def of_means(mean: torch.Tensor) -> list[Callable]:
    """The functions of a mean draw (B, K, *S)."""
    return [lambda: compute_dice(LABELS, RATERS, mean=mean), lambda: compute_thresholded(mean, RATERS)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.select(-2, 1).select(-1, 2).fill_(torch.nan), r"in \[nan, nan\]"),
        (lambda p: p.select(-2, 1).fill_(0.9), "sums over K from 1.15 to 1.9"),
        (lambda p: p.mul_(0.5), "sums over K from 0.5 to 0.5"),
        (lambda p: p.mul_(5), r"in \[0.0, 5.0\]"),
    ],
)
def test_what_is_no_probability_is_refused_everywhere(change, message):
    draws, mean = DRAWS.clone(), DRAWS[:, 0].clone()
    for given in (draws, mean):
        change(given)
    for call in (*of_draws(draws), *of_means(mean)):
        with pytest.raises(ValueError, match=message):
            call()


def test_rounded_probabilities_are_as_good():
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for call in (*of_draws(DRAWS.to(dtype)), *of_means(DRAWS[:, 0].to(dtype))):
            call()
    thirds = torch.full((1, 2, 3, 4), 1 / 3, dtype=torch.bfloat16)  # sums to 1.002
    assert compute_nll(thirds, RATERS).item() == pytest.approx(4 * torch.tensor(3.0).log().item(), rel=1e-2)


@pytest.mark.parametrize("number", [10**9, 257, 1, 0, -2])
def test_a_number_of_classes_that_is_none_is_refused_at_once(number):
    calls = [
        lambda: compute_ged(LABELS, RATERS, num_classes=number),
        lambda: compute_dice(LABELS, RATERS, num_classes=number),
        lambda: CaseMetric("dice", num_classes=number),
        lambda: evaluate_preset("kohl", LABELS, RATERS, num_classes=number),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"num_classes={number}; it must be a whole number from 2, .* to 256"):
            call()
    assert compute_ged(LABELS, LABELS, num_classes=256).isfinite().all()


def test_soft_draws_of_other_numbers_than_the_label_maps_are_refused():
    for pred in (DRAWS[:, :2], torch.full((1, 3, 3, 4), 1 / 3)):
        with pytest.raises(ValueError, match=r"pred has shape .* but for draws \(1, 3, 4\) and num_classes=2"):
            evaluate_preset("standard", LABELS, RATERS, pred=pred)


@pytest.mark.parametrize("draws", [[0.5], [0.5, torch.nan], [0.5, 2.0]])
def test_shares_of_existence_are_one_for_each_case(draws):
    with pytest.raises(ValueError, match="one share from 0 to 1 for each case"):
        existence_curve(torch.tensor(draws), torch.tensor([0.0, 1.0]))


def test_draws_that_are_no_numbers_have_no_rank():
    with pytest.raises(ValueError, match="draws hold NaN"):
        effective_rank(torch.tensor([0.0, torch.nan]).view(1, 2, 1, 1))
