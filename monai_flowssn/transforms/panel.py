"""One picture per case: image, raters, draws, mean and uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.utils.enums import MetaKeys
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from monai_flowssn.files import written_whole
from monai_flowssn.transforms.point import voxel_of
from monai_flowssn.transforms.summary import case_file, case_name
from monai_flowssn.transforms.writer import CaseWriter

# light, saturated colours that stand out on CT grey and on the red of a fundus; class 1 first
CLASS_COLOURS = ("#2ce5ff", "#ffd21f", "#ff5fa8", "#7dff5c", "#ff8c2b", "#b18cff", "#ffffff", "#ff4040")
COLUMNS = 5
MAX_RATERS = COLUMNS - 1


def upright(values: torch.Tensor, like: torch.Tensor) -> tuple[np.ndarray, float]:
    """Turn maps from MONAI's axes (x, y[, z]) to those of a picture (rows, columns[, slices]).

    Files with a true orientation (NIfTI, DICOM, NRRD) are shown as radiologists see them: anterior up, the patient's
    left on the right. Pictures and arrays, whose affine holds a spacing at most, keep their sides.

    Args:
        values: (any, *S).
        like: the image (C, *S) whose meta data and affine hold for the maps.

    Returns:
        The maps (any, rows, columns[, slices]), a view, and the height of a pixel over its width.
    """
    array = np.moveaxis(_plain(values).numpy(), 0, -1)  # (*S, any)
    affine = np.eye(like.ndim)
    if isinstance(like, MetaTensor):
        affine = to_affine_nd(like.ndim - 1, like.affine.numpy(force=True))
    spacing = voxel_sizes(affine)
    if MetaKeys.ORIGINAL_AFFINE in getattr(like, "meta", {}):  # left there by the readers of oriented files alone
        turn = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"[: like.ndim - 1]))
        # not by MONAI's Orientation, which copies: draws may be larger than memory
        array, spacing = apply_orientation(array, turn), spacing[turn[:, 0].argsort()]
    return np.moveaxis(array, -1, 0).swapaxes(1, 2), float(spacing[1] / spacing[0])


def _plain(values: torch.Tensor) -> torch.Tensor:
    return (values.as_tensor() if isinstance(values, MetaTensor) else values).detach().cpu()


class SavePaneld(CaseWriter):
    """Writes `<case>_panel.png`; see :func:`draw_panel`. A volume with a point shows the slice of the point.

    Image, raters and maps must have one geometry: before `Invertd`, or after one of all of them.

    Args:
        output_dir: folder of all outputs; each case gets its own folder in it.
        image_key: the image (C, *S).
        label_key: the raters (R, *S); a case without them gets a panel without them.
    """

    def __init__(self, output_dir: str | Path, *, image_key: str = "image", label_key: str = "label") -> None:
        super().__init__(output_dir)
        self.image_key = image_key
        self.label_key = label_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Draw and write the panel of one case.

        Args:
            data: a case with the maps of :class:`DrawsToMapsd`.

        Returns:
            The case as it came.
        """
        image = data[self.image_key]
        case = case_name(data, image)
        turn = partial(upright, like=image)
        shown, aspect = turn(image)
        names = ("draws", "mean", "segmentation", "entropy", "expected_entropy", "mutual_information")
        maps = {name: turn(data[name])[0] for name in names}
        label = data.get(self.label_key)  # MONAI's evaluator gives None to a case without one
        raters = None if label is None else turn(label)[0]
        at = None
        if "place" in data and image.ndim == 4:
            mark = torch.zeros(1, *image.shape[1:], dtype=torch.bool)
            mark[(0, *voxel_of(data["place"], image))] = True
            at = int(turn(mark)[0].nonzero()[-1].item())
        figure = draw_panel(shown, **maps, raters=raters, title=case, pixel_aspect=aspect, at=at)
        with written_whole(case_file(self.output_dir, case, "panel.png")) as path:
            figure.savefig(path, dpi=200)
        return dict(data)


def draw_panel(
    image: np.ndarray,
    draws: np.ndarray,
    *,
    mean: np.ndarray,
    segmentation: np.ndarray,
    entropy: np.ndarray,
    expected_entropy: np.ndarray,
    mutual_information: np.ndarray,
    raters: np.ndarray | None = None,
    title: str = "",
    pixel_aspect: float = 1.0,
    at: int | None = None,
) -> Figure:
    """Draw the panel of one case.

    First the image, then up to four annotated raters and as many of the first draws as fill the rows, as outlines in
    the colour of the class; below them the mean probability of the foreground, the outline of the segmentation, and the
    entropies on one scale from 0 to log K. In 3-D it shows one slice of the last axis.

    Args:
        image: (C, *S), shown in colour if it is 2-D with three channels; else its first channel is shown.
        draws: label maps (N, *S).
        mean: mean probability of the foreground classes (K - 1, *S).
        segmentation: label map (1, *S).
        entropy: predictive entropy in nats (1, *S).
        expected_entropy: in nats (1, *S).
        mutual_information: in nats (1, *S).
        raters: label maps (R, *S), -1 everywhere for a rater without annotation.
        title: name of the case.
        pixel_aspect: height of a pixel over its width.
        at: the slice of a volume; by default the one with the most foreground.

    Returns:
        The figure, drawn without matplotlib's global state, so that it needs no display and never has to be closed.
    """
    maps = {
        "image": image,
        "draws": draws,
        "mean": mean,
        "segmentation": segmentation,
        "entropy": entropy,
        "expected_entropy": expected_entropy,
        "mutual_information": mutual_information,
        "raters": np.full((0, *draws.shape[1:]), -1) if raters is None else raters,
    }
    subtitle = f"{len(draws)} draw{'s' if len(draws) != 1 else ''}"
    if draws.ndim == 4:
        z = _fullest_slice(draws, maps["raters"]) if at is None else at
        subtitle += f", slice {z + 1} of {draws.shape[-1]}"
        maps = {name: values[..., z] for name, values in maps.items()}
    num_classes = len(mean) + 1
    cells = [*_hypotheses(maps, num_classes), *_maps(maps, num_classes)]
    height = draws.shape[1] * pixel_aspect / draws.shape[2]
    figure = _draw_cells(cells, height=height, pixel_aspect=pixel_aspect, legend=num_classes > 2)
    figure.suptitle(
        f"{title}  ({subtitle})" if title else subtitle, fontsize=9, y=1 - 0.1 / figure.get_figheight(), va="top"
    )
    _add_legend(figure, num_classes)
    return figure


def _add_legend(figure: Figure, num_classes: int) -> None:
    if num_classes == 2:
        return  # one colour says all
    lines = [Line2D([], [], color=_colour(k), label=f"class {k}") for k in range(1, num_classes)]
    figure.legend(handles=lines, loc="lower center", ncols=8, fontsize=7, facecolor="0.35", labelcolor="w")


def _fullest_slice(draws: np.ndarray, raters: np.ndarray) -> int:
    """The slice with the most foreground, raters and draws weighing the same; the middle one if there is none."""
    groups = [masks for masks in (draws, raters) if len(masks)]
    foreground = sum(np.mean([(mask > 0).mean(axis=(0, 1)) for mask in masks], axis=0) for masks in groups)
    return int(np.argmax(foreground)) if np.any(foreground) else draws.shape[-1] // 2


Cell = tuple[str, Callable[[Axes], None]]  # a title, and what draws below it


def _hypotheses(maps: Mapping[str, np.ndarray], num_classes: int) -> list[Cell | None]:
    """Image, raters and draws, padded with None to whole rows; at most two rows."""
    background = _background(maps["image"])
    outlined = partial(_show_outlines, background=background, num_classes=num_classes)
    annotated = [i for i, mask in enumerate(maps["raters"]) if (mask != -1).any()]
    cells: list[Cell | None] = [("Image", partial(_show_image, background=background))]
    cells += [(f"Rater {i + 1}", partial(outlined, mask=maps["raters"][i])) for i in annotated[:MAX_RATERS]]
    if len(annotated) > MAX_RATERS:
        cells[-1] = (f"Rater {annotated[MAX_RATERS - 1] + 1} (of {len(annotated)})", cells[-1][1])  # type: ignore[index]
    free = 2 * COLUMNS - len(cells)
    cells += [(f"Draw {i + 1}", partial(outlined, mask=mask)) for i, mask in enumerate(maps["draws"][:free])]
    return cells + [None] * (-len(cells) % COLUMNS)


def _maps(maps: Mapping[str, np.ndarray], num_classes: int) -> list[Cell]:
    background = _background(maps["image"])
    heat = partial(_show_heat, top=float(np.log(num_classes)))
    foreground = "Mean probability" if num_classes == 2 else "Mean foreground probability"
    return [
        (foreground, partial(_show_heat, values=maps["mean"].sum(axis=0), top=1.0, cmap="viridis")),
        (
            "Segmentation (arg max of mean)",
            partial(_show_outlines, background=background, num_classes=num_classes, mask=maps["segmentation"][0]),
        ),
        ("Predictive entropy [nats]", partial(heat, values=maps["entropy"][0])),
        ("Expected entropy [nats]", partial(heat, values=maps["expected_entropy"][0])),
        ("Mutual information [nats]", partial(heat, values=maps["mutual_information"][0])),
    ]


def _background(image: np.ndarray) -> np.ndarray:
    """What lies under the outlines, in [0, 1]: (H, W) or (H, W, 3), windowed to the central 99 % of the values."""
    shown = np.moveaxis(image, 0, -1) if len(image) == 3 and image.ndim == 3 else image[0]
    low, high = np.percentile(shown, [0.5, 99.5])
    return np.clip((shown - low) / max(high - low, 1e-6), 0, 1)


def _draw_cells(cells: list[Cell | None], *, height: float, pixel_aspect: float, legend: bool) -> Figure:
    """Lay the cells out in rows of five; lengths in inches, `height` is that of an image over its width."""
    rows, width, gap, heading, above, below = len(cells) // COLUMNS, 2.0, 0.1, 0.22, 0.55, 0.65 if legend else 0.35
    size = (COLUMNS * (width + gap) + gap, rows * (width * height + heading) - heading + above + below)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=gap / size[0],
        right=1 - gap / size[0],
        top=1 - above / size[1],
        bottom=below / size[1],
        wspace=gap / width,
        hspace=heading / (width * height),
    )
    for axes, cell in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, cells):
        axes.set_axis_off()
        if cell is not None:
            title, show = cell
            axes.set_title(title, fontsize=7.5, pad=3)
            show(axes)
            axes.set_aspect(pixel_aspect)
    return figure


def _show_image(axes: Axes, *, background: np.ndarray) -> None:
    axes.imshow(background, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _show_outlines(axes: Axes, *, background: np.ndarray, mask: np.ndarray, num_classes: int) -> None:
    _show_image(axes, background=background)
    rows, columns = mask.shape
    for k in range(1, num_classes):
        if (mask == k).any():  # a rim of zeros closes the outline at the border of the image
            rim = np.pad((mask == k).astype(float), 1)
            x, y = np.arange(-1, columns + 1), np.arange(-1, rows + 1)
            axes.contour(x, y, rim, levels=[0.5], colors=[_colour(k)], linewidths=0.9)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    if not (mask > 0).any():
        box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "boxstyle": "round,pad=0.25"}
        axes.text(0.5, 0.06, "empty", transform=axes.transAxes, ha="center", color="w", fontsize=7, bbox=box)


def _show_heat(axes: Axes, *, values: np.ndarray, top: float, cmap: str = "inferno") -> None:
    picture = axes.imshow(values, cmap=cmap, vmin=0, vmax=top, interpolation="nearest")
    beside = axes.inset_axes((0.0, -0.08, 1.0, 0.04))  # below the map, so that it keeps the size of the others
    bar = axes.figure.colorbar(picture, cax=beside, orientation="horizontal", ticks=[0, top / 2, top])
    first, _, last = bar.ax.set_xticklabels(["0", f"{top / 2:.2g}", f"{top:.2g}"])
    first.set_horizontalalignment("left")  # stay below the map, clear of the neighbour's labels
    last.set_horizontalalignment("right")
    bar.ax.tick_params(labelsize=6, length=2, pad=1)
    bar.outline.set_visible(False)


def _colour(index: int) -> str:
    return CLASS_COLOURS[(index - 1) % len(CLASS_COLOURS)]
