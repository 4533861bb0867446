"""A small share of the inputs of ``run.py``; ``scripts/fuzz 1000`` runs many."""

import time

import pytest
from fuzz import judge as judging
from fuzz.judge import Input, judge, table
from fuzz.run import KINDS, run

pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_kind_of_input_ends_well():
    verdicts = run(len(KINDS), seed=1)
    bad = [v for v in verdicts if v.outcome in ("silently wrong", "hang")]
    assert not bad, "\n".join(map(str, bad))
    unclear = [v for v in verdicts if v.outcome == "unclear"]
    assert len(unclear) <= 0.05 * len(verdicts), "\n".join(map(str, unclear))
    assert str(len(KINDS)) in table(verdicts)


def refuse(text):
    raise ValueError(text)


@pytest.mark.parametrize(
    ("call", "right", "outcome"),
    [
        (lambda: 3, lambda value: value == 3, "ok"),
        (lambda: 3, lambda value: value == 4, "silently wrong"),
        (lambda: 3, None, "silently wrong"),
        (lambda: refuse("case c7 is bad; remove it"), None, "clear"),
        (lambda: refuse("case c7 is bad"), None, "unclear"),
        (lambda: refuse("remove it"), None, "unclear"),
        (lambda: refuse("case c7 is bad; remove it"), lambda value: True, "unclear"),
        (lambda: {}["c7"], None, "unclear"),
        (lambda: time.sleep(9), None, "hang"),
    ],
)
def test_the_judge(monkeypatch, call, right, outcome):
    monkeypatch.setattr(judging, "LIMIT", 0.05)
    assert judge("some: kind", Input(call, right, ["c7"])).outcome == outcome
    told = judge("some: kind", Input(lambda: 3, lambda value: True, ["c7"], told=True))
    assert told.outcome == "silently wrong"
