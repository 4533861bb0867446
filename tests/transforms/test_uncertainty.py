import math

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    Resized,
    ResizeWithPadOrCropd,
    Spacingd,
)
from PIL import Image

from monai_flowssn.transforms.saving import LABEL_MAPS, MAPS, SaveMapsd
from monai_flowssn.transforms.uncertainty import DrawsToMapsd, collect_draws, entropy


def binary_entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def random_draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(3).softmax(dim=1)


def maps(pred: torch.Tensor) -> dict:
    """The maps of draws (N, K, *S) of a blank image."""
    return DrawsToMapsd()({"pred": pred, "image": torch.zeros(1, *pred.shape[2:])})


def inverted(preprocessing: Compose, data: dict) -> dict:
    nearest = [name in LABEL_MAPS for name in MAPS]
    return Invertd(keys=MAPS, transform=preprocessing, orig_keys="image", nearest_interp=nearest)(data)


def foreground_draws(image: torch.Tensor, n: int = 3) -> torch.Tensor:
    """Draws that follow the image, one with a little more foreground than the other: (n, 2, *S)."""
    return torch.stack([torch.stack([1 - p, p]) for p in (image[0].clamp(0, 1) * (1 - 0.1 * i) for i in range(n))])


def test_one_pixel_two_draws_closed_form():
    p, q = 0.9, 0.3
    pred = torch.tensor([[1 - p, p], [1 - q, q]]).reshape(2, 2, 1, 1)
    middle = (p + q) / 2
    assert maps(pred)["mean"].item() == pytest.approx(middle)
    assert maps(pred)["expected_entropy"].item() == pytest.approx((binary_entropy(p) + binary_entropy(q)) / 2, abs=1e-6)
    gain = binary_entropy(middle) - (binary_entropy(p) + binary_entropy(q)) / 2
    assert maps(pred)["mutual_information"].item() == pytest.approx(gain, abs=1e-6)


def test_identical_draws_have_no_mutual_information():
    pred = random_draws(1, 3, 5, 4).expand(7, -1, -1, -1)
    information = maps(pred)["mutual_information"]
    assert information.min() >= 0
    assert information.max() < 1e-6


def test_opposite_certain_draws_reach_log_two():
    pred = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 2, 1, 1)
    assert maps(pred)["expected_entropy"].item() == 0
    assert maps(pred)["mutual_information"].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_entropy_of_uniform_is_log_k(num_classes):
    uniform = torch.full((num_classes, 2, 2), 1 / num_classes)
    torch.testing.assert_close(entropy(uniform), torch.full((2, 2), math.log(num_classes)))


@pytest.mark.parametrize("size", [(6, 5), (4, 5, 3)])
@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_maps_against_plain_formulas(size, num_classes, dtype):
    pred = random_draws(5, num_classes, *size).to(dtype)
    image = MetaTensor(torch.zeros(1, *size), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    out = DrawsToMapsd()({"image": image, "pred": pred, "case": "p1"})
    exact = pred.double()
    mean = exact.mean(0)
    total = -(mean * mean.log()).sum(0)
    expected = -(exact * exact.log()).nan_to_num().sum(1).mean(0)
    assert torch.equal(out["draws"].as_tensor(), exact.argmax(1).to(torch.uint8))
    assert torch.equal(out["segmentation"].as_tensor()[0], mean.argmax(0).to(torch.uint8))
    near = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(out["mean"].as_tensor(), mean[1:], **near)
    torch.testing.assert_close(out["entropy"].as_tensor()[0], total, **near)
    torch.testing.assert_close(out["expected_entropy"].as_tensor()[0], expected, **near)
    torch.testing.assert_close(out["mutual_information"].as_tensor()[0], (total - expected).clamp_min(0), **near)


def test_maps_carry_affine_and_meta_of_the_image():
    affine = torch.diag(torch.tensor([0.7, 0.7, 2.5, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.zeros(1, 4, 4), affine=affine, meta={"filename_or_obj": "p1.nii.gz"})
    out = DrawsToMapsd()({"image": image, "pred": random_draws(2, 2, 4, 4), "case": "p1"})
    for name in MAPS:
        assert torch.equal(out[name].affine, affine)
        assert out[name].meta["filename_or_obj"] == "p1.nii.gz"
    out["mean"].meta["filename_or_obj"] = "other"
    assert image.meta["filename_or_obj"] == "p1.nii.gz"


@pytest.mark.parametrize("shape", [(2, 2, 4), (1, 3, 2, 4, 4, 4), (0, 2, 4, 4), (3, 1, 4, 4)])
def test_draws_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(N, K, \*S\)"):
        DrawsToMapsd()({"image": torch.zeros(1, 4, 4), "pred": torch.zeros(shape)})


def test_draws_of_another_size_than_the_image_are_refused():
    with pytest.raises(ValueError, match=r"same size; got \(4, 4\) and \(4, 5\)"):
        DrawsToMapsd()({"image": torch.zeros(1, 4, 5), "pred": torch.zeros(2, 2, 4, 4)})


def volume(path, shape):
    """A ball in a NIfTI volume with a flipped, anisotropic affine."""
    axes = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    ball = (sum((a / n) ** 2 for a, n in zip(axes, shape)) < 0.09).astype(np.float32)
    affine = np.array([[-0.8, 0, 0, 40], [0, 0.9, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(ball, affine), path)
    return ball, affine


@pytest.mark.parametrize("shape", [(24, 20, 10), (24, 20, 1), (24, 20)])
def test_nifti_outputs_have_the_geometry_of_the_input(tmp_path, shape):
    ball, affine = volume(tmp_path / "scan.nii.gz", shape)
    spatial = len(shape)
    preprocessing = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            *([Orientationd("image", axcodes="LPS", labels=None)] if spatial == 3 else []),
            Spacingd("image", pixdim=(1.0, 1.0, 2.5)[:spatial], mode="bilinear"),
            CenterSpatialCropd("image", roi_size=(16, 14, -1)[:spatial]),
            ResizeWithPadOrCropd("image", spatial_size=(16, 16, max(12, shape[-1] // 2))[:spatial]),
        ]
    )
    batch = list_data_collate([preprocessing({"image": tmp_path / "scan.nii.gz", "case": "p1"})])
    batch["pred"] = torch.stack([foreground_draws(image) for image in batch["image"].as_tensor()])
    data = DrawsToMapsd()(decollate_batch(batch)[0])
    SaveMapsd(tmp_path / "out")(inverted(preprocessing, data))
    for name in MAPS:
        saved = nib.load(tmp_path / "out" / "p1" / f"p1_{name}.nii.gz")
        np.testing.assert_allclose(saved.affine, affine, atol=1e-4)
        expected = (*shape, 1, 3)[: spatial + 2] if spatial == 2 else (*shape, 3)
        assert saved.shape == (expected if name == "draws" else shape)
        assert saved.get_data_dtype() == (np.uint8 if name in LABEL_MAPS else np.float32)
    segmentation = np.asarray(nib.load(tmp_path / "out" / "p1" / "p1_segmentation.nii.gz").dataobj)
    overlap = 2 * (segmentation * ball).sum() / (segmentation.sum() + ball.sum())
    assert overlap > 0.85  # two resamplings blur the edge; a wrong flip or shift gives less


def test_off_centre_object_returns_to_its_place(tmp_path):
    """A marker in a corner of the crop would be found elsewhere if an axis were flipped or swapped."""
    image = np.zeros((1, 12, 10), dtype=np.float32)
    image[0, 3:5, 6:8] = 1
    crop = Compose([CenterSpatialCropd("image", roi_size=(8, 8))])
    item = {"image": MetaTensor(torch.from_numpy(image), affine=torch.eye(4, dtype=torch.float64)), "case": "p1"}
    data = crop(item)
    data = inverted(crop, DrawsToMapsd()({**data, "pred": foreground_draws(data["image"].as_tensor())}))
    SaveMapsd(tmp_path)(data)
    draws = np.asarray(nib.load(tmp_path / "p1" / "p1_draws.nii.gz").dataobj)
    assert draws.shape == (12, 10, 1, 3)
    for n in range(3):
        np.testing.assert_array_equal(draws[:, :, 0, n], image[0])
    mean = np.asarray(nib.load(tmp_path / "p1" / "p1_mean.nii.gz").dataobj)
    np.testing.assert_allclose(mean, 0.9 * image[0], rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("reduced", [False, True])
def test_draws_that_are_no_numbers_are_refused_by_case(bad, reduced):
    """Their arg max would be "no lesion", whether they come as they are or reduced while they were made."""
    pred = random_draws(3, 2, 4, 5)
    pred[1, 1, 2, 3] = pred[2, 0, 0, 0] = bad
    given = collect_draws([pred[:2], pred[2:]], torch.empty(3, 4, 5, dtype=torch.uint8)) if reduced else pred
    with pytest.raises(ValueError, match=r"^Case 'p1': .*NaN or infinite at 2 of 20 pixels"):
        DrawsToMapsd()({"image": torch.zeros(1, 4, 5), "pred": given, "case": "p1"})


def test_maps_stay_on_the_device_of_the_draws():
    """`meta` is a device without values, which therefore says where one is looked at: at the check, after all is reduced."""
    collected = collect_draws([torch.empty(3, 2, 4, 5, device="meta")], torch.empty(3, 4, 5, device="meta"))
    assert {values.device.type for values in collected.values()} == {"meta"}


def test_several_foreground_classes_lie_on_the_last_axis(tmp_path):
    pred = random_draws(3, 4, 5, 6)
    image = MetaTensor(torch.zeros(1, 5, 6))
    data = SaveMapsd(tmp_path)(DrawsToMapsd()({"image": image, "pred": pred, "case": "p1"}))
    mean = np.asarray(nib.load(tmp_path / "p1" / "p1_mean.nii.gz").dataobj)
    np.testing.assert_allclose(np.moveaxis(mean[:, :, 0], -1, 0), data["mean"].numpy())


def test_colour_picture_gives_upright_png_of_its_size(tmp_path):
    picture = np.zeros((20, 30, 3), dtype=np.uint8)  # rows, columns
    picture[2:8, 20:28] = 255
    Image.fromarray(picture).save(tmp_path / "eye.png")
    preprocessing = Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image"), Resized("image", spatial_size=(60, 40), mode="nearest")]
    )
    data = preprocessing({"image": tmp_path / "eye.png"})
    pred = foreground_draws(data["image"].as_tensor() / 255, n=2)
    data = inverted(preprocessing, DrawsToMapsd()({**data, "pred": pred}))
    for draws in (data["draws"], data["draws"][:1]):  # the second run has fewer draws than the first
        SaveMapsd(tmp_path / "out")({**data, "draws": draws})
    folder = tmp_path / "out" / "eye"
    assert sorted(path.name for path in folder.iterdir()) == [
        "eye_draws_000.png",
        "eye_entropy.png",
        "eye_expected_entropy.png",
        "eye_mean.png",
        "eye_mutual_information.png",
        "eye_segmentation.png",
    ]
    with Image.open(folder / "eye_segmentation.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), picture[..., 0] // 255)  # class ids, whatever the palette
    with Image.open(folder / "eye_mean.png") as saved:
        assert saved.text["scale"] == "mean = pixel value / 255 * 1.000000"
        assert np.asarray(saved)[4, 24] == round(0.95 * 255)


def test_three_contrasts_of_a_scanner_keep_their_pixel_size(tmp_path):
    image = MetaTensor(torch.zeros(3, 4, 4), affine=torch.diag(torch.tensor([0.5, 0.6, 3.0, 1.0])))
    SaveMapsd(tmp_path)(DrawsToMapsd()({"image": image, "pred": torch.full((2, 2, 4, 4), 0.5), "case": "p1"}))
    assert nib.load(tmp_path / "p1" / "p1_segmentation.nii.gz").header.get_zooms()[:2] == pytest.approx((0.5, 0.6))


def test_png_entropy_scale(tmp_path):
    image = MetaTensor(torch.zeros(3, 4, 4))
    pred = torch.full((2, 4, 4, 4), 0.25)
    SaveMapsd(tmp_path)(DrawsToMapsd()({"image": image, "pred": pred, "case": "p1"}))
    with Image.open(tmp_path / "p1" / "p1_entropy.png") as saved:
        assert saved.text["scale"] == f"entropy = pixel value / 255 * {math.log(4):.6f} nats"
        assert (np.asarray(saved) == 255).all()
    assert (tmp_path / "p1" / "p1_mean_003.png").is_file()
    assert not (tmp_path / "p1" / "p1_mean_000.png").exists()


def test_png_of_a_volume_is_refused(tmp_path):
    data = DrawsToMapsd()({"image": MetaTensor(torch.zeros(1, 4, 4, 4)), "pred": random_draws(2, 2, 4, 4, 4)})
    with pytest.raises(ValueError, match="PNG files hold 2-D maps"):
        SaveMapsd(tmp_path, output_ext=".png")(data)


def test_unknown_extension_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'\.jpg'"):
        SaveMapsd(tmp_path, output_ext=".jpg")


POSTPROCESSING = """
preprocessing:
  _target_: Compose
  transforms:
    - {_target_: CenterSpatialCropd, keys: image, roi_size: [8, 8]}
postprocessing:
  _target_: Compose
  transforms:
    - {_target_: monai_flowssn.transforms.DrawsToMapsd, keys: pred}
saving:
  _target_: Compose
  transforms:
    - {_target_: monai_flowssn.transforms.panel.SavePaneld, output_dir: "@output_dir"}
    - _target_: Invertd
      keys: [draws, mean, segmentation, entropy, expected_entropy, mutual_information]
      transform: "@preprocessing"
      orig_keys: image
      nearest_interp: [true, false, true, false, false, false]
    - {_target_: monai_flowssn.transforms.SaveMapsd, output_dir: "@output_dir"}
    - {_target_: monai_flowssn.transforms.SaveSummaryd, output_dir: "@output_dir"}
"""


def test_the_whole_chain_from_a_config(tmp_path):
    (tmp_path / "chain.yaml").write_text(POSTPROCESSING)
    parser = ConfigParser()
    parser.read_config(tmp_path / "chain.yaml")
    parser["output_dir"] = str(tmp_path / "out")
    image = MetaTensor(torch.rand(1, 12, 10), meta={"filename_or_obj": "p1"})
    data = parser.get_parsed_content("preprocessing")({"image": image, "case": "p1"})
    data["pred"] = random_draws(4, 2, 8, 8)
    parser.get_parsed_content("saving")(parser.get_parsed_content("postprocessing")(data))
    names = {path.name for path in (tmp_path / "out" / "p1").iterdir()}
    assert names == {*(f"p1_{name}.nii.gz" for name in MAPS), "p1_panel.png", "p1_summary.json"}
    assert nib.load(tmp_path / "out" / "p1" / "p1_entropy.nii.gz").shape == (12, 10)
