"""Parts of a simulated lung in three dimensions, in mm around the origin: smooth random fields, body wall, vessels.

Each part is drawn once from a generator and can then be cut by any plane z; nothing here is a measured image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["AIR", "LUNG", "SOFT", "Body", "Tubes", "Waves", "grow_rays", "grow_vessels"]

LUNG, SOFT, FAT, MARROW, CORTEX, AIR = -850.0, 40.0, -100.0, 180.0, 600.0, -1000.0  # Hounsfield units


@dataclass(frozen=True)
class Waves:
    r"""Smooth random field of unit variance, :math:`\sqrt{2/M} \sum_m \cos(k_m \cdot (x, y, z) + \phi_m)`."""

    vectors: np.ndarray  # (M, 3) rad / mm
    phases: np.ndarray  # (M,)

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, *, shortest: float, longest: float) -> Waves:
        """Draw ``count`` waves whose lengths lie between two bounds in mm."""
        length = np.exp(rng.uniform(np.log(shortest), np.log(longest), (count, 1)))
        return cls(2 * np.pi * _unit(rng.normal(size=(count, 3))) / length, rng.uniform(0, 2 * np.pi, count))

    def __call__(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Values (H, W) on the plane z at the columns x (W,) and rows y (H,)."""
        across, down, along = self.vectors.T
        rows = np.exp(1j * (np.outer(y, down) + along * z + self.phases))
        return np.sqrt(2 / len(along)) * (rows @ np.exp(1j * np.outer(across, x))).real


@dataclass(frozen=True)
class Tubes:
    """Balls strung along curved tubes: centres (P, 3) and radii (P,) in mm."""

    centres: np.ndarray
    radii: np.ndarray

    def __call__(self, x: np.ndarray, y: np.ndarray, z: float, *, thickness: float) -> np.ndarray:
        """Share (H, W) of every pixel that the tubes fill in a slice of the given thickness around z."""
        pixel = x[1] - x[0]
        away = np.maximum(np.abs(self.centres[:, 2] - z) - thickness / 2, 0)
        wide = int(np.ceil(self.radii.max(initial=0) / pixel)) + 1
        across, down = (self.centres[:, 0] - x[0]) / pixel, (self.centres[:, 1] - y[0]) / pixel
        near = (away < self.radii + pixel / 2) & (across > -wide) & (across < len(x) + wide - 1)
        near &= (down > -wide) & (down < len(y) + wide - 1)
        canvas = np.zeros((len(y) + 4 * wide, len(x) + 4 * wide))
        small = near & (self.radii < 2.5 * pixel)  # most balls are small: two passes, so that their windows are too
        for chosen in (small, near & ~small):
            _stamp(canvas, across[chosen], down[chosen], away[chosen] / pixel, self.radii[chosen] / pixel, 2 * wide)
        return canvas[2 * wide : -2 * wide, 2 * wide : -2 * wide]


def _stamp(
    canvas: np.ndarray, across: np.ndarray, down: np.ndarray, away: np.ndarray, radii: np.ndarray, border: int
) -> None:
    """Raise the canvas to every ball, with an edge one pixel wide; all lengths in pixels."""
    reach = int(np.ceil(radii.max(initial=0))) + 1
    window = np.arange(-reach, reach + 1)
    column = np.rint(across).astype(int)[:, None] + window
    row = np.rint(down).astype(int)[:, None] + window
    flat = (column - across[:, None])[:, None, :] ** 2 + (row - down[:, None])[:, :, None] ** 2
    filled = np.clip(radii[:, None, None] + 0.5 - np.sqrt(flat + away[:, None, None] ** 2), 0, 1)
    filled *= np.minimum(2 * radii, 1)[:, None, None]  # a tube thinner than a pixel cannot fill it
    index = (row + border)[:, :, None] * canvas.shape[1] + (column + border)[:, None, :]
    np.maximum.at(canvas.reshape(-1), index.ravel(), filled.ravel())


def grow_vessels(rng: np.random.Generator, hilum: np.ndarray, *, trunks: int = 110) -> Tubes:
    """Grow trees of vessels, three generations deep, away from the hilum (3,) and thinner the farther from it."""
    start = rng.uniform(-1, 1, (trunks, 3)) * [65, 65, 45]
    heading = start - hilum
    radius = rng.uniform(0.6, 1.3, trunks) * (0.8 + 3.0 * np.exp(-np.linalg.norm(heading, axis=1) / 30))
    centres, radii = [], []
    for steps in (60, 40, 30):
        path, ways, widths = _walk(rng, start, heading, radius, steps)
        centres.append(path.reshape(-1, 3))
        radii.append(widths.ravel())
        fork = rng.integers(4, steps, (len(path), 3))
        picked = np.arange(len(path))[:, None], fork
        start, radius = path[picked].reshape(-1, 3), 0.72 * widths[picked].ravel()
        heading = (ways[picked] + rng.normal(0, 0.5, (*fork.shape, 3))).reshape(-1, 3)
    return Tubes(np.concatenate(centres), np.concatenate(radii))


def grow_rays(rng: np.random.Generator, radius: float, spiculation: float) -> Tubes:
    """Grow the thin rays of a spiculated nodule of the given radius in mm; more and longer the higher its rating."""
    count = rng.poisson(3.5 * (spiculation - 1))
    heading = _unit(rng.normal(size=(count, 3)) * [1, 1, 0.5])
    length = radius * rng.uniform(0.3, 0.3 + 0.2 * spiculation)
    path, _, widths = _walk(rng, 0.6 * radius * heading, heading, np.full(count, 0.55), int(length / 0.6) + 3)
    return Tubes(path.reshape(-1, 3), widths.ravel())


def _walk(
    rng: np.random.Generator, start: np.ndarray, heading: np.ndarray, radius: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow curved, tapering paths in steps of 0.6 mm: points and headings (T, steps, 3), radii (T, steps)."""
    bend = np.cumsum(rng.normal(0, 0.06, (len(start), steps, 3)), axis=1)
    ways = _unit(_unit(heading)[:, None] + bend)
    return start[:, None] + 0.6 * np.cumsum(ways, axis=1), ways, np.outer(radius, np.linspace(1, 0.5, steps))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class Body:
    """What lies around the lung: an ellipsoidal pleura, then muscle, ribs, fat and air; towards the heart only muscle."""

    angle: float  # of the direction to the nearest chest wall
    centre: np.ndarray  # (3,) of the lung, in the frame turned by the angle
    radii: np.ndarray  # (3,) of the lung
    ribs: np.ndarray  # period, slope, shift and half length of the ribs along the wall
    layers: np.ndarray  # depths in mm where fat and air begin
    ripple: Waves  # of the pleura

    @classmethod
    def draw(cls, rng: np.random.Generator, radius: float) -> Body:
        """Draw a body whose chest wall stays clear of a nodule of the given radius in mm at the origin."""
        radii = rng.uniform([48, 62, 90], [70, 95, 140])
        wall = 1.15 * radius + rng.gamma(2.0, 9.0)
        centre = np.array([wall - radii[0], rng.uniform(-12, 12), rng.uniform(-25, 25)])
        ribs = rng.uniform([36, -0.9, 0, 8], [50, 0.9, 50, 15])
        layers = rng.uniform([14, 34], [24, 60])
        return cls(rng.uniform(0, 2 * np.pi), centre, radii, ribs, layers, Waves.draw(rng, 8, shortest=20, longest=60))

    @property
    def hilum(self) -> np.ndarray:
        """Where the vessels come from (3,), on the side of the heart."""
        across, down, along = self.centre - [0.75 * self.radii[0], 0, 0]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([cos * across - sin * down, sin * across + cos * down, along])

    def __call__(self, inside: np.ndarray, tissue: np.ndarray, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Hounsfield units (H, W) on the plane z: ``inside`` where lung is, wall with the unevenness ``tissue`` around it."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = cos * x + sin * y[:, None], cos * y[:, None] - sin * x, np.full((len(y), len(x)), z)
        scaled = (np.stack(turned) - self.centre[:, None, None]) / self.radii[:, None, None]
        level = np.maximum(np.linalg.norm(scaled, axis=0), 1e-6)
        steep = np.linalg.norm(scaled / self.radii[:, None, None], axis=0) / level
        ripple = self.ripple(x, y, z)
        depth = (level - 1) / np.maximum(steep, 1e-6) + 1.2 * ripple  # first-order distance to the pleura
        lateral = np.clip(2 * scaled[0] + 0.6, 0, 1)  # 0 towards the heart
        wall = SOFT + 10 * tissue + lateral * (FAT - SOFT) * _ramp((depth - self.layers[0] + 4 * ripple) / 2)
        bone, marrow = self._ribs(depth, np.arctan2(scaled[1], scaled[0]), z)
        wall = wall + lateral * bone * (CORTEX + (MARROW - CORTEX) * marrow - wall)
        wall = wall + lateral * (AIR - wall) * _ramp(depth - self.layers[1])
        return inside + (wall - inside) * _ramp(depth)

    def _ribs(self, depth: np.ndarray, arc: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
        period, slope, shift, half = self.ribs
        along = (arc * self.radii[:2].mean() + slope * z + shift) % period - period / 2
        level = np.sqrt((along / half) ** 2 + ((depth - 7) / 4) ** 2)
        return _ramp(4 * (1 - level)), _ramp(4 * (0.6 - level))


def _ramp(distance: np.ndarray) -> np.ndarray:
    """Share of a pixel, about 1 mm wide, that lies beyond a surface at the signed distance."""
    return np.clip(distance + 0.5, 0, 1)
