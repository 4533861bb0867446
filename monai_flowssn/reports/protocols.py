"""The published protocols as a page that a reader can check a paper against."""

from __future__ import annotations

from monai_flowssn.metrics.comparison import Choice
from monai_flowssn.metrics.presets import PRESETS, Preset
from monai_flowssn.reports.grid import Grid, render


def protocols() -> str:
    """Return the table of ``PRESETS`` and what each departs from, as Markdown: the part of docs/metrics.md that code writes."""
    rows = [
        [f"`{name}`", preset.paper, preset.code or "ours", ", ".join(map(str, preset.draws)), _choices(preset)]
        for name, preset in PRESETS.items()
    ]
    notes = tuple(f"**{name}**: {preset.notes}" for name, preset in PRESETS.items() if preset.notes)
    return render([Grid("Presets", ["preset", "paper", "code", "N", "metrics"], rows, notes)], "markdown")


def _choices(preset: Preset) -> str:
    text = _keys(preset.choices)
    return f"{text}; K > 2: {_keys(preset.multiclass)}" if preset.multiclass else text


def _keys(choices: tuple[Choice, ...]) -> str:
    return ", ".join(f"`{choice.key}`" for choice in choices)
