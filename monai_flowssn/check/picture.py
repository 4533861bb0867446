"""A picture of a few cases with the outlines that each rater drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from monai_flowssn.transforms.panel import CLASS_COLOURS, upright

__all__ = ["draw_outlines"]

AROUND = 1.0  # of the marked region's size, shown on each side of it


def draw_outlines(items: Sequence[Mapping[Any, Any]]) -> Figure:
    """Draw the slice with the most foreground of each case, around what anybody marked, and one outline per rater and class.

    Args:
        items: at most six, with image (C, *S), label (R, *S) in the values of the files, -1 for a missing rater, and case.
    """
    figure = Figure(figsize=(10.5, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, item in enumerate(items, start=1):
        _draw(figure.add_subplot(2, 3, place), item)
    raters = max(len(item["label"]) for item in items)
    handles = [Line2D([], [], color=_colour(rater), label=f"rater {rater}") for rater in range(raters)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(raters, 8), frameon=False)
    return figure


def _draw(axis: Axes, item: Mapping[Any, Any]) -> None:
    image, aspect = upright(item["image"], item["image"])
    label, _ = upright(item["label"], item["image"])
    background = 0 if (label == 0).any() else label[label >= 0].min()
    marked = (label != background) & (label >= 0)
    if image.ndim == 4:
        z = int(marked.sum(axis=(0, 1, 2)).argmax())
        image, label, marked = image[..., z], label[..., z], marked[..., z]
    colour = image.shape[0] == 3
    shown = np.moveaxis(image, 0, -1) / max(float(image.max()), 1e-9) if colour else image[0]
    axis.imshow(shown, cmap="gray", aspect=aspect, interpolation="nearest")
    for rater, mask in enumerate(label):
        for value in np.setdiff1d(np.unique(mask), [background, -1]):
            inside = np.pad(mask == value, 1).astype(float)  # so that an outline closes at the edge
            rows, columns = np.mgrid[-1 : inside.shape[0] - 1, -1 : inside.shape[1] - 1]
            axis.contour(columns, rows, inside, [0.5], colors=[_colour(rater)], linewidths=1.2)
    _zoom(axis, marked.any(0))
    drawn = int(marked.reshape(len(marked), -1).any(1).sum())
    there = int((label >= 0).reshape(len(label), -1).any(1).sum())
    axis.set_title(f"{str(item['case'])[-34:]}\n{drawn} of {there} raters marked something", fontsize=9)
    axis.set_axis_off()


def _zoom(axis: Axes, marked: np.ndarray) -> None:
    if not marked.any():
        return
    places = np.argwhere(marked)
    low, high = places.min(0), places.max(0)
    centre, half = (low + high) / 2, max(*(high - low + 1), 16) * (0.5 + AROUND)
    for limit, middle, size in (
        (axis.set_ylim, centre[0], marked.shape[0]),
        (axis.set_xlim, centre[1], marked.shape[1]),
    ):
        first, last = max(middle - half, -0.5), min(middle + half, size - 0.5)
        limit((last, first) if limit == axis.set_ylim else (first, last))


def _colour(rater: int) -> str:
    return CLASS_COLOURS[rater % len(CLASS_COLOURS)]
