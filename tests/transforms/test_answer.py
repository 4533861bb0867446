import math

import pytest
import torch
from monai.data import MetaTensor

from monai_flowssn.transforms import AnswerViewerd, DrawsToMapsd


def case(size=(4, 3), **more):
    """Two draws of a case: everything foreground, and nothing."""
    draws = torch.zeros(2, 2, *size)
    draws[0, 1] = draws[1, 0] = 1
    affine = torch.diag(torch.tensor([2.0, 3, 4, 1], dtype=torch.float64))
    return DrawsToMapsd()(
        {"image": MetaTensor(torch.zeros(1, *size), affine=affine), "pred": draws, "case": "a", **more}
    )


def test_the_first_of_several_outputs_is_the_default():
    out = AnswerViewerd()(case())
    assert out["result"]["output"] == "segmentation"
    assert out["pred"].shape == (4, 3)
    assert out["pred"].dtype == torch.uint8
    assert "result_extension" not in out


@pytest.mark.parametrize(("draw", "value"), [(1, 1), (2, 0)])
def test_one_draw(draw, value):
    out = AnswerViewerd("draw", draw=draw)(case())
    assert (out["pred"] == value).all()


def test_all_draws_go_into_a_file_of_segments():
    out = AnswerViewerd("draws")(case((4, 3, 2)))
    assert out["pred"].shape == (2, 4, 3, 2)
    assert out["result_extension"] == ".seg.nrrd"


def test_the_only_draw_is_a_label_map():
    item = case()
    item["draws"] = item["draws"][:1]
    out = AnswerViewerd("draws")(item)
    assert out["result"]["output"] == "draw"
    assert (out["pred"] == 1).all()
    assert "result_extension" not in out


@pytest.mark.parametrize("output", ["entropy", "mutual_information"])
def test_entropies_are_in_nats_and_in_pictures_scaled(output):
    out = AnswerViewerd(output)(case())
    torch.testing.assert_close(out["pred"].as_tensor(), torch.full((4, 3), math.log(2)))
    picture = AnswerViewerd(output)(case(image_path="x/y.PNG"))
    assert (picture["pred"] == 255).all()
    assert picture["pred"].dtype == torch.uint8
    assert picture["result"]["scale"] == f"{output} = pixel value / 255 * 0.693147 nats"


def test_the_answer_has_the_size_of_every_draw():
    result = AnswerViewerd()(case((4, 3, 2)))["result"]
    assert result["classes"]["1"]["per_draw"] == [24 * 24.0, 0.0]  # voxels of 2 x 3 x 4 mm
    assert result["uncertainty"]["mutual_information"] == pytest.approx(math.log(2))


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"output is 'mean'; choose one of segmentation"):
        AnswerViewerd("mean")
    with pytest.raises(ValueError, match="draw is 3; 2 were made: choose from 1 to 2"):
        AnswerViewerd("draw", draw=3)(case())
