import csv

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import MetricsSaver, from_engine

from monai_flowssn.handlers import metrics as handlers
from monai_flowssn.metrics import compute_ged, compute_nll


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
            "val_ged_v_n2": handlers.GEDHandler(hard, n=2),
            "val_ged_u_n6": handlers.GEDHandler(hard, estimator="u"),
            "val_nll_n6": handlers.NLLHandler(soft),
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


@pytest.mark.parametrize(
    ("handler", "key"),
    [
        (handlers.HMIoUHandler, "draws"),
        (handlers.AverageIoUHandler, "draws"),
        (handlers.DiversityHandler, "draws"),
        (handlers.RaterDiceHandler, "draws"),
        (handlers.RaterDiceHandler, "pred"),
        (handlers.CalibrationHandler, "pred"),
        (handlers.NCCHandler, "pred"),
    ],
)
def test_every_handler_gives_one_value_per_case(handler, key, batches):
    state = run({"m": handler(from_engine((key, "label")))}, batches)
    assert state.metric_details["m"].shape == (3,)
    assert state.metrics["m"] == pytest.approx(state.metric_details["m"].mean().item())


def test_a_csv_per_case(batches, tmp_path):
    saver = MetricsSaver(
        save_dir=str(tmp_path),
        metric_details="*",
        batch_transform=lambda batch: [{"filename_or_obj": f"case{len(c['label'])}"} for c in batch],
    )
    state = run({"ged_v_n6": handlers.GEDHandler(from_engine(("draws", "label")))}, batches, saver)
    rows = list(csv.reader((tmp_path / "ged_v_n6_raw.csv").read_text().splitlines()))
    assert [row[0] for row in rows[1:]] == ["case4", "case3", "case1"]
    values = [float(row[1]) for row in rows[1:]]
    assert values == pytest.approx(state.metric_details["ged_v_n6"].tolist(), abs=1e-4)


def test_details_can_be_left_out(batches):
    state = run({"m": handlers.GEDHandler(from_engine(("draws", "label")), save_details=False)}, batches)
    assert not hasattr(state, "metric_details")
