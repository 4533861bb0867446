import numpy as np
import pytest

from monai_flowssn.data.embedded.simulated_lung import AIR, LUNG, Body, Tubes, Waves, grow_rays, grow_vessels

AXIS = np.arange(-20.0, 21.0)


def rng():
    return np.random.default_rng(0)


def test_waves_have_unit_variance_and_are_smooth_in_every_direction():
    waves = Waves.draw(rng(), 64, shortest=10, longest=20)
    far = np.arange(0.0, 400.0, 4.0)
    assert waves(far, far, 3.0).std() == pytest.approx(1.0, abs=0.1)
    here, above, below = waves(AXIS, AXIS, 0.0), waves(AXIS, AXIS, 0.1), waves(AXIS, AXIS + 0.1, 0.0)
    assert 0 < np.abs(here - above).max() < 0.3
    assert 0 < np.abs(here - below).max() < 0.3


def test_a_ball_is_a_disc_of_its_radius_and_ends_beyond_it():
    ball = Tubes(np.array([[3.0, -5.0, 0.0]]), np.array([6.0]))
    disc = ball(AXIS, AXIS, 0.0, thickness=0.0)
    expected = np.hypot(AXIS - 3.0, (AXIS + 5.0)[:, None]) <= 6.0
    np.testing.assert_array_equal(disc >= 0.5, expected)
    assert ball(AXIS, AXIS, 4.0, thickness=0.0).sum() < 0.7 * disc.sum()
    assert not ball(AXIS, AXIS, 8.0, thickness=0.0).any()
    assert ball(AXIS, AXIS, 8.0, thickness=6.0).any()


def test_balls_outside_the_plane_or_across_its_border_do_no_harm():
    tubes = Tubes(
        np.array([[500.0, 0, 0], [-20.0, -20.0, 0], [22.0, 0, 0], [0, 0, 90.0]]), np.array([1.0, 3.0, 5.0, 2.0])
    )
    filled = tubes(AXIS, AXIS, 0.0, thickness=1.0)
    assert filled.shape == (41, 41)
    assert filled[0, 0] == filled[20, -1] == 1
    assert filled[20, 20] == 0


def test_no_tubes_fill_nothing():
    rays = grow_rays(rng(), 5.0, 1.0)  # spiculation 1: none
    assert len(rays.radii) == 0
    assert not rays(AXIS, AXIS, 0.0, thickness=1.0).any()


def test_vessels_are_connected_and_taper():
    vessels = grow_vessels(rng(), np.array([-60.0, 0, 0]), trunks=3)
    first = vessels.centres[:60]
    assert np.linalg.norm(np.diff(first, axis=0), axis=1) == pytest.approx(0.6)
    assert (np.diff(vessels.radii[:60]) < 0).all()


def test_the_lung_is_inside_the_wall_and_air_outside_of_it():
    body = Body.draw(rng(), 5.0)
    wide = np.arange(-150.0, 151.0, 2.0)
    image = body(np.full((151, 151), LUNG), np.zeros((151, 151)), wide, wide, 0.0)
    assert image[75, 75] == LUNG  # a nodule would be here
    assert image.max() > 300  # ribs
    nearest = np.rint(75 + 70 * np.array([np.sin(body.angle), np.cos(body.angle)])).astype(int)
    assert image[tuple(nearest)] == AIR
