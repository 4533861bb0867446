import re
import runpy
from pathlib import Path

from monai_flowssn.metrics import METRICS, PRESETS
from monai_flowssn.reports.protocols import protocols

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text()


def test_the_page_has_the_presets_as_they_are():
    page = runpy.run_path(str(ROOT / "scripts" / "metrics_page.py"))["page"]
    assert page(PAGE) == PAGE, "run python scripts/metrics_page.py"


def test_the_page_explains_every_word_and_metric():
    words = set(re.findall(r"`(\w+)`", PAGE.split("## Metrics")[0]))
    for preset in PRESETS.values():
        for choice in (*preset.choices, *preset.multiclass):
            for name, value in choice.options.items():
                if isinstance(value, str) and choice.metric in ("ged", "diversity", "hm_iou", "dice", "average_iou"):
                    assert {value, f"{name}_{value}"} & words, (choice.key, value)
    assert {name for name in METRICS if f"| `{name}` |" in PAGE} == set(METRICS)


def test_every_preset_is_a_row_with_its_source():
    text = protocols()
    for name, preset in PRESETS.items():
        assert f"| `{name}` | {preset.paper} | {preset.code or 'ours'} |" in text
        assert not preset.code or re.search(r"^[\w.-]+/[\w.-]+@[0-9a-f]{7}: ", preset.code)
