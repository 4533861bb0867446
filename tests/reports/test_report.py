from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from monai_flowssn.metrics import bootstrap_interval, paired_difference
from monai_flowssn.reports import PUBLISHED, Run, pool_tables, read_runs, read_table, report
from monai_flowssn.reports.names import parse

PATIENTS = ["p", "p", "q", "r", "r", "s"]


def write(path: Path, columns: dict[str, list[float]], cases: list[str] | None = None) -> Path:
    names = [f"c{i}" for i in range(len(PATIENTS))] if cases is None else cases
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "patient", *columns])
        writer.writerows(zip(names, PATIENTS, *(map(repr, values) for values in columns.values())))
    return path


def column(seed: int, shift: float = 0.0) -> list[float]:
    return (np.random.default_rng(seed).random(6) + shift).tolist()


def cells(text: str, title: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell."""
    part = text.split(f"## {title}")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_values_and_differences_are_those_of_the_bootstrap(tmp_path):
    a, b = column(1), column(2)
    write(tmp_path / "a.csv", {"test_ged_v_n4": a})
    write(tmp_path / "b.csv", {"test_ged_v_n4": b})
    text = report(read_runs([f"first={tmp_path / 'a.csv'}", f"second={tmp_path / 'b.csv'}"]))
    mean, low, high = bootstrap_interval(a, PATIENTS)
    assert cells(text, "Values")["test_ged_v_n4"][0] == f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    mean, low, high = paired_difference(b, a, PATIENTS)
    assert cells(text, "Differences to first")["test_ged_v_n4"] == [f"{mean:.3f} [{low:.3f}, {high:.3f}]"]
    assert "first: 6 cases of 4 patients." in text


def test_the_order_of_cases_does_not_matter(tmp_path):
    a = column(1)
    write(tmp_path / "a.csv", {"test_ged_v_n4": a})
    path = write(tmp_path / "b.csv", {"test_ged_v_n4": a})
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]))
    text = report(read_runs([f"a={tmp_path / 'a.csv'}", f"b={path}"]))
    assert cells(text, "Differences to a")["test_ged_v_n4"] == ["0.000 [0.000, 0.000]"]


def test_runs_on_other_cases_are_not_compared(tmp_path):
    values = {"test_ged_v_n4": column(1)}
    a = write(tmp_path / "a.csv", values)
    b = write(tmp_path / "b.csv", values, ["c0", "c1", "c2", "c3", "c4", "x"])
    text = report(read_runs([f"a={a}", f"b={b}"]))
    assert "b is not compared: it has other cases, 1 only in a (c5) and 1 only in b (x)." in text
    assert "## Ranks" not in text
    moved = tmp_path / "moved.csv"
    moved.write_text(a.read_text().replace("c3,r", "c3,q"))
    assert "c3 is of another patient in moved than in a" in report(read_runs([f"a={a}", f"moved={moved}"]))


def test_other_conventions_and_draws_are_not_compared(tmp_path):
    a = write(
        tmp_path / "a.csv", {"test_ged_v_n16": column(1), "test_hm_iou_best_n16": column(2), "seconds": column(3)}
    )
    b = write(tmp_path / "b.csv", {"test_ged_v_n32": column(1), "test_hm_iou_duplicate_n16": column(2)})
    text = report(read_runs([f"a={a}", f"b={b}"]))
    assert "Not compared, as convention or number of draws differ: test_ged_v_n16 of a and test_ged_v_n32 of b;" in text
    assert "test_hm_iou_best_n16 of a and test_hm_iou_duplicate_n16 of b" in text
    assert set(cells(text, "Values")) >= {"test_ged_v_n16", "test_ged_v_n32", "seconds"}
    assert cells(text, "Values")["seconds"][1] == "-"


def test_trainings_of_one_name_are_one_column(tmp_path):
    low = write(tmp_path / "0.csv", {"test_dice_majority_n4": [0.0] * 6})
    high = write(tmp_path / "1.csv", {"test_dice_majority_n4": [1.0] * 6})
    text = report(read_runs([f"a={low}", f"a={high}", f"b={low}"]))
    assert cells(text, "Values")["test_dice_majority_n4"] == ["0.500 [0.000, 1.000]", "0.000 [0.000, 0.000]"]
    assert "a: 6 cases of 4 patients, 2 trainings, which the intervals resample too." in text
    assert cells(text, "Ranks")["test_dice_majority_n4"] == ["1", "2~"]
    other = write(tmp_path / "2.csv", {"test_dice_majority_n4": [1.0] * 6}, list("abcdef"))
    with pytest.raises(ValueError, match="the trainings of a were evaluated on different cases: 6 only in"):
        read_runs([f"a={low}", f"a={other}"])


def test_ranks_know_which_end_is_better(tmp_path):
    a = {"test_ged_u_n4": column(1), "test_dice_majority_n4": column(2), "test_diversity_v_n4": column(3)}
    b = {name: [value + 0.1 for value in values] for name, values in a.items()}
    names = [f"{name}={write(tmp_path / f'{name}.csv', values)}" for name, values in (("a", a), ("b", b))]
    ranks = cells(report(read_runs(names)), "Ranks")
    assert ranks["test_ged_u_n4"] == ["1", "2"]
    assert ranks["test_dice_majority_n4"] == ["2", "1"]
    assert "test_diversity_v_n4" not in ranks
    assert ranks["mean rank"] == ["1.50", "1.50"]


def test_what_of_a_gain_is_the_estimators(tmp_path):
    u = np.array(column(1))
    d = 0.6
    values = {f"test_ged_v_n{n}": (u + d / n).tolist() for n in (16, 100)}
    values["test_diversity_v_n100"] = [d * 99 / 100] * 6
    text = report(read_runs([f"a={write(tmp_path / 'a.csv', values)}"]))
    expected = f"{d * (1 / 16 - 1 / 100):.4f}"
    assert cells(text, "What of a gain")["a"] == ["16 → 100", expected, expected, "0.600"]


def test_existence_has_its_calibration_curve(tmp_path):
    values = {
        "test_existence_draws_n4": [0.0, 0.0, 0.0, 0.5, 1.0, 1.0],
        "test_existence_raters_n4": [0.0, 0.0, 0.3, 0.5, 1.0, 0.5],
    }
    text = report(read_runs([f"a={write(tmp_path / 'a.csv', values)}"]))
    rows = [line for line in text.split("## Whether")[1].splitlines() if line.startswith("| a")]
    assert rows == ["| a | 0.000 | 0.100 | 3 |", "| a | 0.500 | 0.500 | 1 |", "| a | 1.000 | 0.750 | 2 |"]


def test_published_rows_stand_beside(tmp_path):
    path = write(tmp_path / "a.csv", {"test_ged_v_n16": column(1), "test_hm_iou_duplicate_n50": column(2)})
    text = report(read_runs([f"a={path}"]), published="lidc")
    table = cells(text, "Beside published numbers: lidc")
    header = table["method"]
    assert table["MoSE"][header.index("ged_v_n16")] == "0.218"
    assert table["a (here)"][header.index("ged_v_n100")] == "-"
    assert table["a (here)"][header.index("hm_iou_duplicate")] == cells(text, "Values")["test_hm_iou_duplicate_n50"][0]
    assert "test_hm_iou_duplicate_n50 for hm_iou_duplicate" in text
    assert "CCDM: its fall from 16 to 100 draws is that of D = 0.55." in text


def test_every_published_key_is_a_metric_of_ours():
    for about, rows in PUBLISHED.values():
        assert about
        for row in rows:
            for key, value in row.values.items():
                assert parse(key).better, key
                assert 0 < value < 1


def test_latex_is_escaped(tmp_path):
    path = write(tmp_path / "a.csv", {"test_ged_v_n16": column(1)})
    text = report(read_runs([f"50%_a={path}"]), form="latex")
    assert r"test\_ged\_v\_n16 & " in text
    assert r"50\%\_a \\" in text
    assert not re.search(r"(?<!\\)[_%]", text.replace("\\begin{tabular}", ""))
    with pytest.raises(ValueError, match="form is 'html'"):
        report(read_runs([str(path)]), form="html")


def test_folds_pool_to_one_table(tmp_path):
    parts = {"test_dice_pooled_n4/1": column(1), "test_dice_pooled_n4/weight": [2.0] * 6}
    a = read_table(write(tmp_path / "a.csv", parts))
    b = read_table(write(tmp_path / "b.csv", parts, list("uvwxyz")))
    pooled = pool_tables([a, b])
    assert len(pooled.cases) == 12
    value = Run("a", (pooled,)).interval("test_dice_pooled_n4").mean
    assert value == pytest.approx(sum(column(1)) / 12)
    with pytest.raises(ValueError, match=r"6 cases are in two tables \(c0, c1, c2 \.\.\.\); pool different folds"):
        pool_tables([a, a])
    with pytest.raises(ValueError, match="have different metrics"):
        pool_tables([a, read_table(write(tmp_path / "c.csv", {"test_ged_v_n4": column(1)}, list("uvwxyz")))])


def test_bad_tables(tmp_path):
    with pytest.raises(ValueError, match="does not open"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is no table of cases"):
        read_table(tmp_path / "other.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="does not open"):
        read_table(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match=r"has 1 cases twice \(c0\); names must tell cases apart"):
        read_table(write(tmp_path / "twice.csv", {"test_ged_v_n4": column(1)}, ["c0", "c0", "c1", "c2", "c3", "c4"]))
    path = write(tmp_path / "words.csv", {"test_ged_v_n4": column(1)})
    path.write_text(path.read_text() + "c9,p,none\n")
    with pytest.raises(ValueError, match="every cell behind case and patient must be a number"):
        read_table(path)
