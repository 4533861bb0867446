"""Tables as Markdown and as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from monai_flowssn.metrics.bootstrap import Interval
from monai_flowssn.options import check_option

FORMS = ("markdown", "latex")

_LATEX = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "~": r"$\sim$",
    "²": "$^2$",
    "→": r"$\to$",
}


class Grid(NamedTuple):
    """A table with a title and what a reader has to know of it.

    Args:
        title: one line.
        header: the names of the columns.
        rows: cells, as many in each as the header has.
        notes: paragraphs below.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def render(grids: Iterable[Grid], form: str) -> str:
    """Return tables as text.

    Args:
        grids: the tables; those without rows have their notes alone.
        form: ``"markdown"`` or ``"latex"`` (with booktabs).

    Example:
        >>> print(render([Grid("Values", ["metric", "a"], [["ged_v", "0.2"]])], "markdown"))
        ## Values
        <BLANKLINE>
        | metric | a |
        |---|---|
        | ged_v | 0.2 |
        <BLANKLINE>
    """
    check_option("form", form, FORMS)
    return "\n".join((_markdown if form == "markdown" else _latex)(grid) for grid in grids)


def number(value: float, digits: int = 3) -> str:
    """A value as text; a dash where it is not defined."""
    if math.isnan(value):
        return "-"
    return f"{value:.{digits if abs(value) < 10 else 1}f}"


def interval(value: Interval, digits: int = 3) -> str:
    """A value and its interval as text."""
    if math.isnan(value.low):
        return number(value.mean, digits)
    return f"{number(value.mean, digits)} [{number(value.low, digits)}, {number(value.high, digits)}]"


def _markdown(grid: Grid) -> str:
    lines = [f"## {grid.title}", ""]
    if grid.rows:
        table = [grid.header, ["---"] * len(grid.header), *grid.rows]
        lines += ["|---" * len(row) + "|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in table]
        lines.append("")
    for note in grid.notes:
        lines += [note, ""]
    return "\n".join(lines)


def _latex(grid: Grid) -> str:
    notes = [_escape(note) for note in grid.notes]
    if not grid.rows:
        return "\n\n".join([rf"\paragraph{{{_escape(grid.title)}}}", *notes, ""])
    rows = [" & ".join(map(_escape, row)) + r" \\" for row in (grid.header, *grid.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escape(grid.title)}. {' '.join(notes)}}}".replace(". }", ".}"),
            rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escape(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
