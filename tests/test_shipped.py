"""The models in the box: complete, described, and the same as when their numbers were written down."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from monai_flowssn.shipped import embedded_score, load_shipped

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(path.parent.parent for path in (ROOT / "bundles").glob("*/models/model.pt"))

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns about itself


@pytest.fixture(params=SHIPPED, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_some_and_they_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "bundles").glob("*/models/*.pt")]
    assert sizes
    assert max(sizes) <= 5e6
    assert sum(sizes) <= 40e6


def test_weights_and_code_belong_together(bundle: Path, tmp_path: Path) -> None:
    facts = json.loads((bundle / "models" / "shipped.json").read_text())
    assert embedded_score(load_shipped(bundle), tmp_path) == pytest.approx(facts["check"], abs=1e-3)


def test_a_shipped_model_is_described(bundle: Path) -> None:
    weights = bundle / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    assert {value.dtype for value in state.values() if value.is_floating_point()} <= {torch.bfloat16, torch.float32}
    facts = json.loads((bundle / "models" / "shipped.json").read_text())
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == facts["sha256"]
    card = (bundle / "docs" / "README.md").read_text()
    for metric, (mean, low, high) in facts["test"].items():
        if metric.endswith("_n100"):
            assert f"| {mean:.3f} [{low:.3f}, {high:.3f}] |" in card
    assert facts["sha256"] in card
    assert "CC BY 3.0" in (bundle / "docs" / "data_license.txt").read_text()
    assert (bundle / "LICENSE").is_file()
    metrics = json.loads((bundle / "configs" / "metadata.json").read_text())["eval_metrics"]
    assert metrics["test_ged_u_n100"] == facts["test"]["test_ged_u_n100"][0]


def test_a_bundle_without_weights_is_told() -> None:
    with pytest.raises(ValueError, match="'nowhere' is no bundle"):
        load_shipped("nowhere")
