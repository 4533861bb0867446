import csv

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import MetricsSaver, from_engine

from monai_flowssn.handlers import CaseMetricHandler, CompareOnce
from monai_flowssn.metrics import METRICS, comparison, compute_crps, compute_ged, compute_nll


@pytest.fixture
def batches():
    """Two iterations of decollated cases whose numbers of raters differ."""
    generator = torch.Generator().manual_seed(5)
    cases = []
    for r in (4, 3, 1):
        pred = (2 * torch.randn(6, 2, 4, 4, generator=generator)).softmax(1)
        label = torch.randint(0, 2, (r, 4, 4), generator=generator)
        cases.append({"pred": pred, "draws": pred.argmax(1), "label": label})
    return [cases[:2], cases[2:]]


def run(attached, batches, extra=None):
    engine = Engine(lambda engine, batch: batch)
    for name, handler in attached.items():
        handler.attach(engine, name)
    if extra is not None:
        extra.attach(engine)
    engine.run(batches)
    return engine.state


def test_one_run_gives_several_n_and_conventions(batches):
    hard, soft = from_engine(("draws", "label")), from_engine(("pred", "label"))
    state = run(
        {
            "val_ged_v_n2": CaseMetricHandler("ged", hard, n=2),
            "val_ged_u_n6": CaseMetricHandler("ged", hard, estimator="u"),
            "val_nll_n6": CaseMetricHandler("nll", soft),
        },
        batches,
    )
    cases = [c for batch in batches for c in batch]
    v = torch.cat([compute_ged(c["draws"][None, :2], c["label"][None]) for c in cases])
    u = torch.cat([compute_ged(c["draws"][None], c["label"][None], estimator="u") for c in cases])
    nll = torch.cat([compute_nll(c["pred"][None], c["label"][None]) for c in cases])
    assert state.metrics == pytest.approx(
        {"val_ged_v_n2": v.mean().item(), "val_ged_u_n6": u.mean().item(), "val_nll_n6": nll.mean().item()}
    )
    torch.testing.assert_close(state.metric_details["val_ged_u_n6"], u)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_gives_one_value_per_case(metric, batches):
    state = run({"m": CaseMetricHandler(metric, from_engine(("pred", "label")))}, batches)
    assert state.metric_details["m"].shape == (3,)
    assert state.metrics["m"] == pytest.approx(state.metric_details["m"].nanmean().item())


def test_handlers_share_a_comparison(batches, monkeypatch):
    calls = []
    real = comparison.iou_table
    monkeypatch.setattr(comparison, "iou_table", lambda *a, **k: calls.append(1) or real(*a, **k))
    shared = CompareOnce()
    names = {f"{metric}_n{n}": CaseMetricHandler(metric, shared, n=n) for metric in METRICS for n in (2, 6)}
    calls.clear()  # the handlers try their options
    state = run(names, batches)
    assert len(calls) == 3  # cases
    alone = run(
        {
            name: CaseMetricHandler(name.rsplit("_n")[0], from_engine(("pred", "label")), n=h.metric_fn.n)
            for name, h in names.items()
        },
        batches,
    )
    assert state.metrics == pytest.approx(alone.metrics)


def test_draws_carry_weights_and_raters_their_spacing(batches):
    shared = CompareOnce()
    affine = torch.diag(torch.tensor([0.5, 3.0, 1.0, 1.0]))
    items = [
        {
            **case,
            "label": MetaTensor(case["label"], affine=affine),
            "pred": MetaTensor(case["pred"], meta={"weights": torch.arange(6.0)}),
        }
        for case in batches[0]
    ]
    state = run({"m": CaseMetricHandler("crps", shared), "u": CaseMetricHandler("ged", shared)}, [items])
    weights = torch.arange(6.0)[None]
    crps = torch.cat([compute_crps(c["draws"][None], c["label"][None], weights=weights) for c in batches[0]])
    ged = torch.cat([compute_ged(c["draws"][None], c["label"][None], weights=weights) for c in batches[0]])
    torch.testing.assert_close(state.metric_details["m"], 1.5 * crps)  # pixels of 0.5 x 3
    torch.testing.assert_close(state.metric_details["u"], ged)


def test_an_output_without_draws_is_refused(batches):
    del batches[0][0]["draws"]
    with pytest.raises(ValueError, match="has \\['label', 'pred'\\], but metrics need 'draws' and 'label'"):
        CompareOnce()(batches[0])


def test_a_csv_per_case(batches, tmp_path):
    saver = MetricsSaver(
        save_dir=str(tmp_path),
        metric_details="*",
        batch_transform=lambda batch: [{"filename_or_obj": f"case{len(c['label'])}"} for c in batch],
    )
    state = run({"ged_v_n6": CaseMetricHandler("ged", from_engine(("draws", "label")))}, batches, saver)
    rows = list(csv.reader((tmp_path / "ged_v_n6_raw.csv").read_text().splitlines()))
    assert [row[0] for row in rows[1:]] == ["case4", "case3", "case1"]
    values = [float(row[1]) for row in rows[1:]]
    assert values == pytest.approx(state.metric_details["ged_v_n6"].tolist(), abs=1e-4)


def test_details_can_be_left_out(batches):
    state = run({"m": CaseMetricHandler("ged", from_engine(("draws", "label")), save_details=False)}, batches)
    assert not hasattr(state, "metric_details")
