"""Ids of a config that nothing reads."""

import pytest

from monai_flowssn.options import check_option, unread_ids


def test_all_that_a_workflow_leads_to_is_read():
    config = {
        "a": 1,
        "b": {"_target_": "B", "a": "@a", "c": ["$@c::x + 1"]},
        "c": {"x": {"y": 2}, "z": 3},
        "d": "%c::z",
        "run": ["$@b.go(@d)"],
    }
    assert unread_ids(config) == []


@pytest.mark.parametrize(
    ("config", "unread"),
    [
        ({"run": ["@a"], "a": "text with @b", "b": 1}, ["b"]),  # no reference
        ({"run": ["@a::x"], "a": {"x": 1, "y": {"z": 2}}}, ["a::y"]),
        ({"run": ["@a::y::z"], "a": {"x": 1, "y": {"z": 2, "w": 3}}}, ["a::x", "a::y::w"]),
        ({"run": ["@a#1"], "a": [1, "@b"], "b": 2, "c": 3}, ["c"]),
        (
            {"run": ["@a::x", "@nothing::y"], "a": "@b", "b": {"x": 1}, "c": 2},
            ["c"],
        ),  # an id that is a reference itself
        ({"lr": 1}, ["lr"]),
    ],
)
def test_what_it_does_not_lead_to_is_not(config, unread):
    assert unread_ids(config) == unread


def test_a_choice_that_does_not_exist():
    with pytest.raises(ValueError, match="crops is 'x'; choose one of 'a', 'b'"):
        check_option("crops", "x", ("a", "b"))
