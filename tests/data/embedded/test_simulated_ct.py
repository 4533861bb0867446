import numpy as np
import pytest
from scipy import ndimage

from monai_flowssn.data.embedded.simulated_ct import attenuation, nodule_density, simulate_ct

RATINGS = {"subtlety": 5, "calcification": 6, "margin": 5, "lobulation": 1, "spiculation": 1, "texture": 5}
PLANES = np.arange(5) * 2.0


def balls(radii, size=48):
    """Balls (R, 5, size, size) around the middle of a patch, radii in pixels of 0.7 mm, planes 2 mm apart."""
    axis = np.arange(size) - (size - 1) / 2
    flat = np.hypot(axis, axis[:, None])
    height = (PLANES - PLANES.mean()) / 0.7
    distance = np.sqrt(flat**2 + height[:, None, None] ** 2)
    return np.stack([distance <= radius for radius in radii]).astype(np.uint8)


def simulate(name="a", masks=None, **ratings):
    masks = balls([8, 8, 8, 8]) if masks is None else masks
    return simulate_ct(name, masks, PLANES, spacing=0.7, thickness=2.0, ratings=RATINGS | ratings)


def test_same_name_same_scene_and_another_name_another_one():
    one = simulate()
    assert one.shape == (5, 48, 48)
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, simulate())
    assert np.abs(one - simulate("b")).mean() > 20


def test_the_order_of_the_raters_does_not_matter():
    masks = balls([5, 6, 8, 9])
    np.testing.assert_allclose(simulate(masks=masks), simulate(masks=masks[::-1]), atol=1e-3)


def contrast(**ratings):
    image, inside = simulate(**ratings), balls([5])[0].astype(bool)
    return image[inside].mean() - np.median(image[~balls([12])[0].astype(bool)])


def test_ratings_set_the_look():
    full = contrast()
    assert contrast(subtlety=1) < 0.8 * full
    assert contrast(texture=1) < 0.5 * full
    assert contrast(calcification=3) > 1.1 * full


def test_density_fills_the_outline_that_all_raters_agree_on():
    masks = balls([8, 8, 8, 8])
    density = nodule_density(masks, PLANES, spacing=0.7, margin=5)[2]
    inner, outer = balls([6.5])[0, 2].astype(bool), balls([10])[0, 2].astype(bool)
    assert density[inner].min() > 0.9
    assert density[~outer].max() < 0.1
    assert density.sum() == pytest.approx(masks[0, 2].sum(), rel=0.03)


def test_a_poor_margin_blurs_the_edge():
    masks = balls([8, 8, 8, 8])
    sharp, blurred = (nodule_density(masks, PLANES, spacing=0.7, margin=margin)[2, 24] for margin in (5, 1))
    assert np.abs(np.diff(blurred)).max() < 0.6 * np.abs(np.diff(sharp)).max()


def test_no_raters_outline_is_a_step_where_they_disagree():
    def fall(radii):  # per pixel, from the middle outwards across all four outlines
        return -np.diff(nodule_density(balls(radii), PLANES, spacing=0.7, margin=5)[2, 24, 24:40])

    slope = fall([4, 7, 10, 13])
    assert slope.min() > -1e-6
    assert slope.max() < 0.5 * fall([8, 8, 8, 8]).max()
    turns = np.diff(np.sign(np.diff(slope)[np.abs(np.diff(slope)) > 1e-6]))
    assert np.count_nonzero(turns) == 1  # one soft edge; four outlines would be four steps with flats between


def test_a_slice_that_one_of_four_marked_is_faint():
    masks = balls([8, 8, 8, 8])
    masks[:3, 4] = 0
    density = nodule_density(masks, PLANES, spacing=0.7, margin=4)
    assert density[4].max() < 0.6 * density[3].max()


def test_a_rater_without_any_pixel_does_not_count():
    masks = balls([8, 8, 8, 8])
    masks[3] = 0
    density = nodule_density(masks, PLANES, spacing=0.7, margin=5)
    assert density[2, 24, 24] > 0.85


def test_neighbouring_slices_cohere():
    planes = np.arange(5) * 0.5
    image = simulate_ct("a", balls([8] * 4), planes, spacing=0.7, thickness=2.0, ratings=RATINGS)
    smooth = ndimage.gaussian_filter(image, (0, 2, 2))  # the noise of every slice is its own
    near, far = (np.corrcoef(smooth[2].ravel(), smooth[k].ravel())[0, 1] for k in (3, 0))
    assert near > 0.95
    assert near > far


def test_part_solid_nodules_have_a_core():
    density = np.linspace(0, 1, 11)
    part, glass = (attenuation(density, np.zeros(11), RATINGS | {"texture": texture}) for texture in (3, 1))
    assert part[10] / part[5] > glass[10] / glass[5] + 0.2
