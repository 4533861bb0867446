import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.utils.enums import MetaKeys
from PIL import Image

from monai_flowssn.transforms import panel
from monai_flowssn.transforms.panel import SavePaneld, draw_panel, upright
from monai_flowssn.transforms.uncertainty import DrawsToMapsd


def ball(size, radius: float) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in size], indexing="ij")
    return (sum(a**2 for a in axes) < radius**2).float()


def case_of(size, *, channels=1, num_draws=3, num_classes=2, raters=None, empty=False) -> dict:
    masks = [ball(size, 0 if empty else 3 + i) for i in range(num_draws)]
    pred = torch.stack([torch.stack([1 - m, *([m / (num_classes - 1)] * (num_classes - 1))]) for m in masks])
    data = {"image": MetaTensor(torch.rand(channels, *size)), "pred": pred, "case": "p1"}
    return DrawsToMapsd()(data if raters is None else {**data, "label": raters})


def panel_of(data: dict):
    arrays = {key: np.asarray(data[key]) for key in ("draws", "mean", "segmentation")}
    maps = {key: np.asarray(data[key]) for key in ("entropy", "expected_entropy", "mutual_information")}
    return draw_panel(np.asarray(data["image"]), **arrays, **maps, raters=data.get("label"), title=data["case"])


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize(
    ("size", "channels", "num_classes"), [((24, 32), 1, 2), ((24, 32), 3, 2), ((20, 16, 6), 1, 2), ((24, 24), 1, 4)]
)
def test_panel_is_written_and_shows_something(tmp_path, size, channels, num_classes):
    data = case_of(size, channels=channels, num_classes=num_classes)
    assert SavePaneld(tmp_path)(data)["case"] == "p1"
    with Image.open(tmp_path / "p1" / "p1_panel.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique(pixels[..., 0])) > 100
    assert (pixels == (44, 229, 255)).all(-1).sum() > 100  # the outlines of class 1


def test_raters_come_before_draws_and_missing_raters_are_left_out():
    raters = np.stack([np.full((16, 16), -1), ball((16, 16), 4).numpy(), np.zeros((16, 16))]).astype(np.int16)
    figure = panel_of(case_of((16, 16), raters=raters))
    assert titles(figure)[:6] == ["Image", "Rater 2", "Rater 3", "Draw 1", "Draw 2", "Draw 3"]
    assert texts(figure) == ["empty"]


def test_many_raters_and_draws_fill_two_rows():
    raters = np.ones((7, 16, 16), dtype=np.uint8)
    shown = titles(panel_of(case_of((16, 16), num_draws=20, raters=raters)))
    assert shown[4] == "Rater 4 (of 7)"
    assert shown[5:10] == [f"Draw {i}" for i in range(1, 6)]
    assert len(shown) == 15


def test_empty_draws_say_so():
    assert (
        texts(panel_of(case_of((16, 16), num_draws=2, empty=True))) == ["empty"] * 3
    )  # two draws and the segmentation


def test_slice_with_most_foreground_is_shown():
    data = case_of((12, 12, 7), num_draws=2, empty=True)
    assert panel_of(data).get_suptitle() == "p1  (2 draws, slice 4 of 7)"  # nothing there: the middle
    data["draws"][1, 2:5, 2:5, 5] = 1
    assert panel_of(data).get_suptitle() == "p1  (2 draws, slice 6 of 7)"
    data["label"] = np.zeros((1, 12, 12, 7), dtype=np.uint8)
    data["label"][0, :, :, 1] = 1
    assert panel_of(data).get_suptitle() == "p1  (2 draws, slice 2 of 7)"


def test_a_clicked_volume_shows_the_slice_of_the_click(tmp_path, monkeypatch):
    data, shown = case_of((12, 12, 7), num_draws=2), []
    affine = torch.tensor([[0.0, 2, 0, 5], [0, 0, 3, 0], [1, 0, 0, -4], [0, 0, 0, 1]]).double()
    data["image"] = MetaTensor(data["image"], affine=affine, meta={MetaKeys.ORIGINAL_AFFINE: affine})
    data["place"] = torch.tensor([5 + 2 * 7.0, 3 * 2.0, -4 + 3.0])  # of the voxel [3, 7, 2]
    monkeypatch.setattr(panel, "draw_panel", lambda *_, at, **__: shown.append(at) or Figure())
    SavePaneld(tmp_path)(data)
    assert shown == [3]  # shown from above, so along the first axis of the file


def test_uncertainties_share_one_scale_up_to_log_k():
    pictures = [
        axes.images[0] for axes in panel_of(case_of((16, 16), num_classes=3)).axes if "[nats]" in axes.get_title()
    ]
    assert [picture.get_clim() for picture in pictures] == [(0, pytest.approx(np.log(3)))] * 3


def test_constant_image_is_drawn():
    data = case_of((16, 16))
    data["image"] = torch.zeros(1, 16, 16)
    assert panel_of(data).axes


def test_pictures_keep_their_sides():
    values = torch.arange(6.0).reshape(1, 2, 3)  # x, y
    shown, aspect = upright(values, MetaTensor(values, affine=torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0]))))
    np.testing.assert_array_equal(shown[0], values[0].numpy().T)
    assert aspect == 2.0
    np.testing.assert_array_equal(upright(values, values)[0], shown)


@pytest.mark.parametrize("size", [(3, 4, 2), (3, 4)])
def test_oriented_files_are_shown_as_radiologists_see_them(size):
    """In RAS, x grows to the patient's right, which is shown on the left, and y to anterior, which is shown on top."""
    values = torch.zeros(1, *size)
    values[0, -1, -1] = 1  # right, anterior
    affine = torch.diag(torch.tensor([1.0, 3.0, 5.0, 1.0], dtype=torch.float64))
    like = MetaTensor(values, affine=affine, meta={"original_affine": affine.numpy()})
    shown, aspect = upright(values, like)
    assert shown.shape == (1, 4, 3, *size[2:])
    assert (shown[0, 0, 0] == 1).all()
    assert shown.sum() == values.sum()
    assert aspect == 3.0
