import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_flowssn.transforms.dihedral import RandDihedrald


def draw_poses(image, n=200, keys=("image",)):
    transform = RandDihedrald(keys)
    transform.set_random_state(seed=0)
    return [transform({"image": image, "label": image.clone()}) for _ in range(n)]


@pytest.mark.parametrize(("shape", "count"), [((1, 3, 3), 8), ((1, 3, 2), 4), ((1, 3, 3, 2), 16), ((1, 2, 3, 3), 8)])
def test_draws_the_whole_group_evenly(shape, count):
    image = torch.arange(float(np.prod(shape))).reshape(shape)
    seen = [tuple(pose["image"].flatten().tolist()) for pose in draw_poses(image, 1600)]
    assert len(set(seen)) == count
    frequency = np.array([seen.count(pose) for pose in set(seen)])
    assert ((frequency - 1600 / count) ** 2 / (1600 / count)).sum() < 45  # chi-square, 15 degrees: p < 1e-4
    assert all(pose["image"].shape == shape for pose in draw_poses(image))


def test_equals_rotations_and_flips():
    image = torch.arange(9.0).reshape(1, 3, 3)
    turned = [torch.rot90(image, k, (1, 2)) for k in range(4)]
    expected = {tuple(x.flatten().tolist()) for x in turned + [x.flip(1) for x in turned]}
    assert {tuple(pose["image"].flatten().tolist()) for pose in draw_poses(image)} == expected


def test_image_and_label_move_together():
    image = MetaTensor(torch.rand(1, 4, 4, 3))
    for pose in draw_poses(image, 30, ("image", "label")):
        torch.testing.assert_close(pose["image"].as_tensor(), pose["label"].as_tensor())


def test_every_voxel_keeps_its_place_in_space():
    affine = torch.tensor([[0.0, -2, 0, 5], [2, 0, 0, 7], [0, 0, 3, 1], [0, 0, 0, 1]]).double()
    image = MetaTensor(torch.arange(18.0).reshape(1, 3, 3, 2), affine=affine, meta={"filename_or_obj": "c7"})
    index = torch.stack(torch.meshgrid(*map(torch.arange, (3, 3, 2)), indexing="ij"), -1).reshape(-1, 3).double()
    place = {float(image[0][tuple(i.long())]): affine[:3, :3] @ i + affine[:3, 3] for i in index}
    for pose in draw_poses(image, 40):
        turned = pose["image"]
        assert turned.meta["filename_or_obj"] == "c7"
        for i in index:
            found = turned.affine[:3, :3] @ i + turned.affine[:3, 3]
            torch.testing.assert_close(found, place[float(turned[0][tuple(i.long())])])


def test_pixels_that_are_not_square_are_not_turned():
    image = MetaTensor(torch.arange(9.0).reshape(1, 3, 3), affine=torch.diag(torch.tensor([1.0, 2, 1, 1])))
    assert len({tuple(pose["image"].flatten().tolist()) for pose in draw_poses(image)}) == 4


def test_the_same_seed_gives_the_same_poses_and_the_input_stays():
    image = torch.rand(1, 4, 4)
    before = image.clone()
    first, second = draw_poses(image), draw_poses(image)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second))
    assert torch.equal(image, before)
