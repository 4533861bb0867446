"""Write the presets into docs/metrics.md, between its marks."""

from __future__ import annotations

from pathlib import Path

from monai_flowssn.reports.protocols import protocols

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
MARKS = ("<!-- presets -->", "<!-- end of presets -->")


def page(text: str) -> str:
    """Return the page with the presets as they are."""
    before, rest = text.split(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{protocols()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
