import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCropd, Compose, Invertd, Orientationd, Spacingd

from monai_flowssn.transforms import DrawsToMapsd, InvertDrawsd


@pytest.mark.parametrize("in_a_file", [False, True])
def test_draws_are_inverted_as_by_monai_one_at_a_time(in_a_file, request):
    mapped_bytes = request.getfixturevalue("mapped_bytes") if in_a_file else None
    torch.manual_seed(0)
    affine = torch.tensor([[-0.7, 0, 0, 5], [0, 0.7, 0, -3], [0, 0, 2.5, 1], [0, 0, 0, 1]])
    image = MetaTensor(torch.randn(1, 12, 14, 6), affine=affine)
    preprocessing = Compose(
        [
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(1.0, 1.0, 2.0)),
            CenterSpatialCropd("image", roi_size=(7, 8, 5)),
        ]
    )
    data = preprocessing({"image": image})
    size = data["image"].shape[1:]
    data = DrawsToMapsd()({**data, "pred": torch.rand(4, 3, *size).softmax(dim=1)})
    expected = Invertd("draws", preprocessing, "image", nearest_interp=True)(data)["draws"]
    draws = InvertDrawsd(preprocessing)(data)["draws"]
    if mapped_bytes:
        assert mapped_bytes() >= draws.numel()
    assert draws.dtype == torch.uint8
    assert draws.shape == (4, 12, 14, 6)
    assert len(draws.unique()) == 3
    torch.testing.assert_close(draws.as_tensor().float(), expected.as_tensor().float(), rtol=0, atol=0)
    torch.testing.assert_close(draws.affine, expected.affine)
