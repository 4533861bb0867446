import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from monai_flowssn.metrics import compute_surface


def squares(*corners, size=9, edge=3):
    masks = torch.zeros(1, len(corners), size, size, dtype=torch.uint8)
    for m, corner in enumerate(corners):
        if corner is not None:
            masks[0, m, corner : corner + edge, 2 : 2 + edge] = 1
    return masks


def surface(mask, spacing):
    edge = mask & ~binary_erosion(mask)
    return np.argwhere(edge) * np.asarray(spacing)


def pair(a, b, spacing, score, tolerance):
    a, b = surface(np.asarray(a) > 0, spacing), surface(np.asarray(b) > 0, spacing)
    table = np.linalg.norm(a[:, None] - b[None], axis=-1)
    near = np.concatenate([table.min(1), table.min(0)])
    return near.mean() if score == "distance" else (near <= tolerance).mean()


@pytest.mark.parametrize("score", ["distance", "dice"])
def test_agrees_with_distances_of_all_edge_pixels(score):
    draws, raters = squares(1, 3, 2), squares(2, 4)
    spacing, tolerance, weights = (0.7, 1.5), 1.0, torch.tensor([[1.0, 2.0, 5.0]])
    values = [[pair(s, y, spacing, score, tolerance) for y in raters[0]] for s in draws[0]]
    options = {"score": score, "tolerance": tolerance, "spacing": spacing}
    assert compute_surface(draws, raters, **options).item() == pytest.approx(np.mean(values), abs=1e-5)
    weighted = np.average(np.mean(values, 1), weights=weights[0])
    assert compute_surface(draws, raters, weights=weights, **options).item() == pytest.approx(weighted, abs=1e-5)


def test_a_shift_by_hand():
    line = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    line[..., 2, :] = 1
    moved = line.roll(3, dims=2)
    assert compute_surface(line, moved, spacing=[0.5, 1.0]).item() == pytest.approx(1.5)
    assert compute_surface(line, moved, score="dice", tolerance=2.9).item() == 0
    assert compute_surface(line, moved, score="dice", tolerance=3.0).item() == 1


def test_volumes_have_surfaces():
    cube = torch.zeros(1, 1, 6, 6, 6, dtype=torch.uint8)
    cube[..., 1:4, 1:4, 1:4] = 1
    assert compute_surface(cube, cube.clone(), spacing=[1.0, 1.0, 3.0]).item() == 0


def test_empty_masks():
    empty, square = squares(None), squares(2)
    for score, one in (("distance", 0.0), ("dice", 1.0)):
        assert compute_surface(empty, empty, score=score).isnan().all()
        assert compute_surface(empty, empty, score=score, empty="one").item() == one
    assert compute_surface(empty, square).isnan().all()
    assert compute_surface(empty, square, score="dice").item() == 0


def test_a_missing_rater_is_left_out():
    raters = torch.cat([squares(2).short(), torch.full((1, 1, 9, 9), -1, dtype=torch.int16)], 1)
    assert compute_surface(squares(2), raters).item() == 0


def test_bad_options():
    mask = squares(2)
    for options in ({"score": "hausdorff"}, {"empty": "zero"}, {"tolerance": -1.0}, {"tolerance": math.nan}):
        with pytest.raises(ValueError):
            compute_surface(mask, mask, **options)
