"""Presets against numbers that the authors' own functions gave on the same masks (``authors_values.json``).

Computed once, by running the functions that ``PRESETS`` names at the commits that it names, case by case; null where they give
NaN or stop. None of their code is here.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from seeded_masks import RATERS, seeded_cases

from monai_flowssn.metrics import PRESETS, Comparison, pool

VALUES = json.loads(Path(__file__).with_name("authors_values.json").read_text())
# What papers say and no public code computes.
WITHOUT_CODE = {
    "nf_punet_excl": {"hm_iou_duplicate_drop"},
    "nf_punet_incl": {"hm_iou_duplicate_one"},
    "cflow": {"nll", "ged_v_one"},  # the latter on sets of equal size only
}


@pytest.fixture(scope="module")
def comparisons():
    """By K and whether draws have weights, the twenty cases, with -1 for the raters that did not annotate."""
    return {
        (k, weighted): [compared(*case, k, weighted) for case in seeded_cases(k)] for k in (2, 3) for weighted in (0, 1)
    }


def compared(soft, draws, weights, raters, k, weighted):
    padded = torch.full((1, RATERS, *raters.shape[1:]), -1, dtype=torch.int16)
    padded[0, : len(raters)] = torch.from_numpy(raters)
    return Comparison(
        torch.from_numpy(draws)[None],
        padded,
        torch.from_numpy(soft)[None],
        k,
        weights=torch.from_numpy(weights)[None] if weighted else None,
    )


@pytest.mark.parametrize("name", VALUES)
def test_a_preset_gives_what_its_authors_code_gives(name, comparisons):
    preset, k = name.split("/")
    choices = {choice.key: choice for choice in PRESETS[preset].choices_for(int(k))}
    for key, theirs in VALUES[name].items():
        metric, _, how = key.partition(" ")
        cases = comparisons[int(k), how == "weighted"]
        if how == "of R draws":
            cases = [case.first(int(case.table.annotated.sum())) for case in cases]
        ours = torch.cat([case.compute(choices[metric].metric, **choices[metric].options) for case in cases])
        if isinstance(theirs, list):
            assert len(theirs) == len(cases) == 20
            for case, (value, expected) in enumerate(zip(ours.tolist(), theirs, strict=True)):
                if expected is None:
                    assert "drop_case" not in key or math.isnan(value), (key, case)
                else:
                    assert value == pytest.approx(expected, abs=2e-5), (key, case)
        else:
            assert pool(ours.double().sum(0)).item() == pytest.approx(theirs, abs=1e-5), key


@pytest.mark.parametrize("preset", [name for name in PRESETS if PRESETS[name].code])
def test_every_published_choice_has_such_numbers(preset):
    for k in (2, 3):
        keys = {choice.key for choice in PRESETS[preset].choices_for(k)} - WITHOUT_CODE.get(preset, set())
        if (name := f"{preset}/{k}") in VALUES:
            assert keys == {key.partition(" ")[0] for key in VALUES[name]} - WITHOUT_CODE.get(preset, set())
    assert f"{preset}/2" in VALUES
