import importlib.util

import numpy as np
import pytest
import torch
from monai.transforms import LoadImage, SaveImage

from monai_flowssn.data.cases import check_cases, make_case, pick_evenly, spacing_affine


def item(case="a/b.c"):
    image = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    return make_case(image, np.zeros((2, 4, 3), np.uint8), patient="p", case=case, affine=spacing_affine(0.5, 0.5))


def test_arrays_are_shared_and_carry_geometry():
    image = np.zeros((1, 4, 3), np.uint8)
    made = make_case(image, image, patient="p", case="a/b.c", affine=spacing_affine(0.5, 0.5))
    image[0, 1, 2] = 7
    assert made["image"][0, 1, 2] == 7
    assert made["case"] == made["image"].meta["filename_or_obj"] == "a_b_c"
    torch.testing.assert_close(made["label"].affine, torch.diag(torch.tensor([0.5, 0.5, 1, 1])).double())


@pytest.mark.parametrize("suffix", [".png", ".nii.gz"])
def test_saved_items_come_back_the_same_way_round(tmp_path, suffix):
    save = SaveImage(
        tmp_path, output_ext=suffix, scale=None, resample=suffix != ".png", separate_folder=False, print_log=False
    )
    save(item()["image"])
    loaded = LoadImage(ensure_channel_first=True)(tmp_path / f"a_b_c_trans{suffix}")
    torch.testing.assert_close(loaded.as_tensor(), item()["image"].as_tensor().float())


def test_pick_evenly_keeps_the_ends_and_never_repeats():
    assert pick_evenly(range(100), 5) == [0, 25, 50, 74, 99]
    assert pick_evenly(range(3), 9) == [0, 1, 2]
    with pytest.raises(ValueError, match="limit=0"):
        pick_evenly(range(3), 0)


def test_no_cases_and_equal_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no case for the split 'val'"):
        check_cases([], source=tmp_path, split="val")
    with pytest.raises(ValueError, match="'x'"):
        check_cases([item("x"), item("x")], source=tmp_path, split="val")


def test_no_data_set_is_hidden_by_its_module():
    """A config names functions by path, and Python 3.13 finds a module of that path first."""
    data = importlib.import_module("monai_flowssn.data")
    for name in data.__all__:
        assert importlib.util.find_spec(f"monai_flowssn.data.{name}") is None, name
