"""From an evaluator with every preset to the report, by way of the table of cases."""

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_flowssn.handlers import CaseTable, standard_metrics
from monai_flowssn.metrics import PRESETS, evaluate_preset, pool
from monai_flowssn.reports import read_runs, report
from monai_flowssn.transforms import DrawsToMapsd

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI and ignite warn about themselves


class Draws(nn.Module):
    """Eight draws (B, 8, 2, *S) that depend on the image alone."""

    def forward(self, image):
        shift = torch.linspace(-1, 1, 8).view(1, 8, 1, 1)
        logit = 3 * (image + shift)
        return torch.stack([-logit, logit], 2).softmax(2)


def test_every_preset_reaches_the_report(tmp_path):
    torch.manual_seed(0)
    image = torch.randn(4, 1, 6, 6)
    label = (image + torch.randn(4, 3, 6, 6) > 0.5).to(torch.int16)
    label[2, 1] = -1
    items = [
        {"image": x, "label": y, "case": f"c{i}", "patient": f"p{i // 2}"} for i, (x, y) in enumerate(zip(image, label))
    ]
    metrics = standard_metrics(draws=[4, 8], presets=list(PRESETS))
    (key, first), *others = metrics.items()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=Draws(),
        postprocessing=DrawsToMapsd(),
        key_val_metric={key: first},
        additional_metrics=dict(others),
        val_handlers=[CaseTable(tmp_path, metrics)],
    )
    evaluator.run()
    (run,) = read_runs([f"a={tmp_path / 'per_case.csv'}"])
    assert set(run.metrics) == set(metrics)
    pred = Draws()(image)
    for preset in PRESETS:
        for name, values in evaluate_preset(preset, pred.argmax(2), label, pred=pred).items():
            column = f"test_{name.replace('_one', '')}_n8"
            expected = values.nanmean() if values.ndim == 1 else pool(values.sum(0))
            assert run.interval(column).mean == pytest.approx(expected.item(), abs=1e-5), column
            assert evaluator.state.metrics[column] == pytest.approx(expected.item(), abs=1e-5), column
    assert "| test_dice_per_rater_drop_where_rater_pooled_n8 | 0." in report([run])
