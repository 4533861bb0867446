from __future__ import annotations

import csv

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import from_engine

from monai_flowssn.handlers import CaseMetricHandler, CaseTable, standard_metrics
from monai_flowssn.metrics import PRESETS
from monai_flowssn.reports.runs import read_table


def evaluate(tmp_path, batches):
    engine = Engine(lambda engine, batch: batch)
    engine.add_event_handler("ITERATION_STARTED", lambda engine: setattr(engine.state, "batch", engine.state.batch))
    engine.state.metric_details = {}
    ged = CaseMetricHandler("ged", output_transform=from_engine(["draws", "label"]))
    ged.attach(engine, "test_ged_v_n2")
    CaseTable(tmp_path / "run", {"test_ged_v_n2": ged}).attach(engine)
    engine.run(batches)
    with (tmp_path / "run" / "per_case.csv").open(newline="") as file:
        return list(csv.DictReader(file)), engine.state.metrics


def item(case, draws, patient):
    label = torch.tensor([[[1, 0]]])
    return {"case": case, "patient": patient, "draws": torch.tensor(draws)[:, None], "label": label}


def test_one_row_per_case_at_full_precision(tmp_path):
    batches = [[item("a", [[1, 0], [1, 0]], "p"), item("b", [[1, 1], [1, 0]], "p")], [item("c", [[0, 1], [0, 1]], "q")]]
    rows, metrics = evaluate(tmp_path, batches)
    assert [(row["case"], row["patient"]) for row in rows] == [("a", "p"), ("b", "p"), ("c", "q")]
    values = [float(row["test_ged_v_n2"]) for row in rows]
    assert values == pytest.approx([0, 2 * 0.25 - 0.25, 2])  # by hand: IoU 1; 0.5 and 1; 0
    assert metrics["test_ged_v_n2"] == pytest.approx(sum(values) / 3)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["per_case.csv"]


def test_names_are_text_whatever_is_in_them(tmp_path):
    names = ["=1+1", "a\nb", "+49", 'é, "x"', "p"]
    evaluate(tmp_path, [[item(name, [[1, 0], [1, 0]], name) for name in names]])
    table = read_table(tmp_path / "run" / "per_case.csv")
    assert sorted(table.cases) == sorted(["'=1+1", "a\nb", "'+49", 'é, "x"', "p"])
    assert table.patients == table.cases
    assert table.metrics["test_ged_v_n2"].tolist() == [0] * 5
    text = (tmp_path / "run" / "per_case.csv").read_text(encoding="utf-8")
    assert not any(line.startswith(("=", "+", "-", "@")) for line in text.splitlines())


def test_a_case_that_fails_costs_no_other(tmp_path):
    def batches():
        yield [item("a", [[1, 0], [1, 0]], "p")]
        yield [item("b", [[1, 1], [1, 0]], "p")]
        raise ValueError("c does not load")

    with pytest.raises(ValueError, match="c does not load"):
        evaluate(tmp_path, batches())
    with (tmp_path / "run" / "per_case_unfinished.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["a", "b"]
    assert [float(row["test_ged_v_n2"]) for row in rows] == pytest.approx([0, 0.25])
    assert not (tmp_path / "run" / "per_case.csv").exists()


def test_standard_metrics_name_convention_and_number_of_draws():
    metrics = standard_metrics(num_classes=3, draws=(4, 8), split="val")
    assert len(metrics) == 16
    assert all(name.startswith("val_") and name.rsplit("_n")[-1] in ("4", "8") for name in metrics)
    more = standard_metrics(draws=[4], ged_draws=[1, 4, 3])
    assert list(more)[8:] == ["test_ged_v_n1", "test_ged_v_n3", "test_ged_u_n3"]


@pytest.mark.parametrize("preset", PRESETS)
def test_published_protocols_join_the_standard_metrics(preset):
    metrics = standard_metrics(draws=[4], presets=[preset])
    for choice in PRESETS[preset].choices:  # "one" is what names without a convention mean
        assert f"test_{choice.key.replace('_one', '')}_n4" in metrics
    assert list(metrics)[:8] == list(standard_metrics(draws=[4]))


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="preset is 'resnet'; choose one of 'standard', 'extended'"):
        standard_metrics(presets=["resnet"])
    assert "test_ged_v_drop_n16" in standard_metrics(presets="kohl")


def test_a_protocol_has_its_own_numbers_of_draws():
    assert [name for name in standard_metrics(draws=[16, 100], presets="ccdm") if "ged_v" in name] == [
        f"test_ged_v_n{n}" for n in (16, 100, 32, 50)
    ]
    assert "test_ged_v_drop_case_n16" in standard_metrics(num_classes=3, presets="mose")


def test_parts_of_pooled_metrics_are_columns(tmp_path):
    engine = Engine(lambda engine, batch: batch)
    engine.state.metric_details = {}
    dice = CaseMetricHandler("dice", from_engine(["draws", "label"]), kind="per_rater", pooled=True)
    dice.attach(engine, "test_dice")
    CaseTable(tmp_path, {"test_dice": dice}).attach(engine)
    engine.run([[item("a", [[1, 1]], "p"), item("b", [[1, 0]], "p")]])
    with (tmp_path / "per_case.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test_dice/1"]) for row in rows] == pytest.approx([2 / 3, 1])
    assert [float(row["test_dice/weight"]) for row in rows] == [1, 1]
    assert engine.state.metrics["test_dice"] == pytest.approx(5 / 6)
