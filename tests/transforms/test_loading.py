import numpy as np
import pytest
from cases_in_memory import item, zeros
from PIL import Image

from monai_flowssn.transforms.loading import LoadCased

ARRAY = np.random.default_rng(0).integers(0, 2, (5, 4), dtype=np.uint8) * 255


def load(folder, *masks):
    Image.fromarray(ARRAY).save(folder / "image.png")
    for i, mask in enumerate(masks):
        mask.save(folder / f"{i}.png")
    paths = [str(folder / f"{i}.png") for i in range(len(masks))]
    return LoadCased()({"image": str(folder / "image.png"), "label": paths, "case": "c7"})


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGB", "RGBA", "P"])
def test_every_kind_of_png_gives_one_map_per_rater(tmp_path, mode):
    mask = Image.fromarray(ARRAY).convert(mode)
    for raters in (1, 3):
        label = load(tmp_path, *[mask] * raters)["label"]
        np.testing.assert_array_equal(label.numpy() > 0, np.stack([ARRAY.T > 0] * raters))
        assert label.meta["filename_or_obj"] == "c7"


def test_colours_are_refused(tmp_path):
    mask = Image.fromarray(np.stack([ARRAY, ARRAY, 0 * ARRAY], -1))
    with pytest.raises(ValueError, match=r"Case 'c7': .*1\.png is coloured"):
        load(tmp_path, Image.fromarray(ARRAY), mask)


def test_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Case 'c7': mask .*1\.png has size \(4, 3\), its image \(4, 5\).*resample"):
        load(tmp_path, Image.fromarray(ARRAY), Image.fromarray(ARRAY[:3]))


def test_no_rater_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Case 'c7': no rater's mask"):
        load(tmp_path)


def test_loaded_items_and_items_without_label_pass(tmp_path):
    loaded = item(zeros(2, 4, 4))
    assert LoadCased()(loaded)["label"] is loaded["label"]
    Image.fromarray(ARRAY).save(tmp_path / "image.png")
    assert LoadCased()({"image": str(tmp_path / "image.png")})["image"].shape == (1, 4, 5)


def test_channels_from_several_files(tmp_path):
    Image.fromarray(ARRAY).save(tmp_path / "a.png")
    assert LoadCased()({"image": [str(tmp_path / "a.png")] * 3})["image"].shape == (3, 4, 5)
