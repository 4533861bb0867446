import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from PIL import Image

from monai_flowssn.transforms.raters import CheckCased, KeepRaterd, LoadCased, PadRatersd, RandDihedrald


def item(label, image=None, **more):
    label = torch.as_tensor(label)
    image = torch.zeros(1, *label.shape[1:]) if image is None else image
    return {"image": MetaTensor(image), "label": MetaTensor(label), "case": "c7", **more}


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


class TestLoadCased:
    array = np.random.default_rng(0).integers(0, 2, (5, 4), dtype=np.uint8) * 255

    def load(self, folder, *masks):
        Image.fromarray(self.array).save(folder / "image.png")
        for i, mask in enumerate(masks):
            mask.save(folder / f"{i}.png")
        paths = [str(folder / f"{i}.png") for i in range(len(masks))]
        return LoadCased()({"image": str(folder / "image.png"), "label": paths, "case": "c7"})

    @pytest.mark.parametrize("mode", ["L", "1", "LA", "RGB", "RGBA", "P"])
    def test_every_kind_of_png_gives_one_map_per_rater(self, tmp_path, mode):
        mask = Image.fromarray(self.array).convert(mode)
        for raters in (1, 3):
            label = self.load(tmp_path, *[mask] * raters)["label"]
            np.testing.assert_array_equal(label.numpy() > 0, np.stack([self.array.T > 0] * raters))
            assert label.meta["filename_or_obj"] == "c7"

    def test_colours_are_refused(self, tmp_path):
        mask = Image.fromarray(np.stack([self.array, self.array, 0 * self.array], -1))
        with pytest.raises(ValueError, match=r"Case 'c7': mask .*1\.png has 3 differing channels"):
            self.load(tmp_path, Image.fromarray(self.array), mask)

    def test_another_size_is_refused(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"Case 'c7': mask .*1\.png has size \(4, 3\), its image \(4, 5\).*resample"
        ):
            self.load(tmp_path, Image.fromarray(self.array), Image.fromarray(self.array[:3]))

    def test_no_rater_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="Case 'c7' has no rater's mask"):
            self.load(tmp_path)

    def test_loaded_items_and_items_without_label_pass(self, tmp_path):
        loaded = item(zeros(2, 4, 4))
        assert LoadCased()(loaded)["label"] is loaded["label"]
        Image.fromarray(self.array).save(tmp_path / "image.png")
        assert LoadCased()({"image": str(tmp_path / "image.png")})["image"].shape == (1, 4, 5)

    def test_channels_from_several_files(self, tmp_path):
        Image.fromarray(self.array).save(tmp_path / "a.png")
        assert LoadCased()({"image": [str(tmp_path / "a.png")] * 3})["image"].shape == (3, 4, 5)


class TestCheckCased:
    def test_a_good_case_gets_a_small_integer_label_and_keeps_its_meta(self):
        good = item([[[0.0, 1.0]], [[-1.0, -1.0]]])
        good["label"].meta["key"] = "value"
        label = CheckCased(num_classes=2)(good)["label"]
        assert label.dtype == torch.int8
        assert label.tolist() == [[[0, 1]], [[-1, -1]]]
        assert label.meta["key"] == "value"
        assert CheckCased(num_classes=200)(item([[[199]]]))["label"].dtype == torch.int16

    def test_the_item_itself_stays(self):
        good = item(zeros(1, 2, 2))
        CheckCased(num_classes=2)(good)
        assert good["label"].dtype == torch.float32

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (item(zeros(2, 4, 4), zeros(1, 4, 5)), r"masks have size \(4, 4\), the image \(4, 5\).*resample"),
            (item([[[0.0, 0.25]]]), r"hold \[0.25\].*threshold"),
            (item([[[0.0, float("nan")]]]), r"hold \[nan\]"),
            (item([[[0, 255]]]), r"hold \[0, 255\], but with num_classes=2 .*--data::class_values"),
            (item([[[0, 2]]]), r"hold \[0, 2\], .*0 to 1"),
            (item([[[0, -2]]]), r"hold \[-2, 0\]"),
            (item([[[-1, -1]], [[-1, -1]]]), "all 2 raters are missing"),
            (item(zeros(0, 2, 2)), "all 0 raters are missing"),
            (item([[[0, -1]]]), "-1 in places"),
            (item(zeros(1, 1, 2), torch.tensor([[[0, float("nan")]]])), "NaN"),
            (item(zeros(1, 1, 2), torch.tensor([[[0, float("inf")]]])), "infinite"),
        ],
    )
    def test_a_bad_case_is_refused_by_name(self, bad, message):
        with pytest.raises(ValueError, match=f"^Case 'c7': (.|\n)*{message}"):
            CheckCased(num_classes=2)(bad)

    def test_the_name_may_come_from_the_meta_data(self):
        bad = item([[[5]]])
        del bad["case"]
        bad["image"].meta["filename_or_obj"] = "from_meta"
        with pytest.raises(ValueError, match="Case 'from_meta'"):
            CheckCased(num_classes=2)(bad)

    def test_one_class_is_refused(self):
        with pytest.raises(ValueError, match="num_classes=1"):
            CheckCased(num_classes=1)

    def test_an_intensity_range_that_leaves_nearly_nothing_is_told_once(self):
        check = CheckCased(num_classes=2, intensity_range=[0, 255])
        with pytest.warns(UserWarning, match=r"'c7': 100% of the image lies outside intensity_range=\[0, 255\]"):
            check(item(zeros(1, 2, 2), image=torch.full((1, 2, 2), -800.0)))
        check(item(zeros(1, 2, 2), image=torch.full((1, 2, 2), -800.0)))
        CheckCased(num_classes=2, intensity_range=[0, 255])(item(zeros(1, 2, 2)))
        with pytest.raises(ValueError, match="the first must be below the second"):
            CheckCased(num_classes=2, intensity_range=[400, -1000])


class TestPadRatersd:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
    def test_cases_with_different_raters_make_one_batch(self, dtype):
        pad = PadRatersd("label", raters=4, spatial_dims=2)
        batch = list_data_collate([pad(item(zeros(r, 3, 2, dtype=dtype))) for r in (1, 3, 4)])
        assert batch["label"].shape == (3, 4, 3, 2)
        assert (batch["label"] == -1).flatten(2).all(2).sum(1).tolist() == [3, 1, 0]

    def test_meta_survives(self):
        padded = PadRatersd("label", raters=3, spatial_dims=3)(item(zeros(1, 3, 2, 2, dtype=torch.int8)) | {})["label"]
        assert isinstance(padded, MetaTensor)
        assert padded.dtype == torch.int8

    def test_what_makes_no_batch_is_refused(self):
        with pytest.raises(ValueError, match="Case 'c7' has 3 raters, but raters=2"):
            PadRatersd("label", raters=2, spatial_dims=2)(item(zeros(3, 2, 2)))
        with pytest.raises(ValueError, match=r"size \(3, 2, 2\), the network spatial_dims=2"):
            PadRatersd("label", raters=2, spatial_dims=2)(item(zeros(1, 3, 2, 2)))
        with pytest.raises(ValueError, match="raters=0"):
            PadRatersd("label", raters=0, spatial_dims=2)


class TestRandDihedrald:
    def poses(self, image, n=200, keys=("image",)):
        transform = RandDihedrald(keys)
        transform.set_random_state(seed=0)
        return [transform({"image": image, "label": image.clone()}) for _ in range(n)]

    @pytest.mark.parametrize(
        ("shape", "count"), [((1, 3, 3), 8), ((1, 3, 2), 4), ((1, 3, 3, 2), 16), ((1, 2, 3, 3), 8)]
    )
    def test_draws_the_whole_group_evenly(self, shape, count):
        image = torch.arange(float(np.prod(shape))).reshape(shape)
        seen = [tuple(pose["image"].flatten().tolist()) for pose in self.poses(image, 1600)]
        assert len(set(seen)) == count
        frequency = np.array([seen.count(pose) for pose in set(seen)])
        assert ((frequency - 1600 / count) ** 2 / (1600 / count)).sum() < 45  # chi-square, 15 degrees: p < 1e-4
        assert all(pose["image"].shape == shape for pose in self.poses(image))

    def test_equals_rotations_and_flips(self):
        image = torch.arange(9.0).reshape(1, 3, 3)
        turned = [torch.rot90(image, k, (1, 2)) for k in range(4)]
        expected = {tuple(x.flatten().tolist()) for x in turned + [x.flip(1) for x in turned]}
        assert {tuple(pose["image"].flatten().tolist()) for pose in self.poses(image)} == expected

    def test_image_and_label_move_together(self):
        image = MetaTensor(torch.rand(1, 4, 4, 3))
        for pose in self.poses(image, 30, ("image", "label")):
            torch.testing.assert_close(pose["image"].as_tensor(), pose["label"].as_tensor())

    def test_every_voxel_keeps_its_place_in_space(self):
        affine = torch.tensor([[0.0, -2, 0, 5], [2, 0, 0, 7], [0, 0, 3, 1], [0, 0, 0, 1]]).double()
        image = MetaTensor(torch.arange(18.0).reshape(1, 3, 3, 2), affine=affine, meta={"filename_or_obj": "c7"})
        index = torch.stack(torch.meshgrid(*map(torch.arange, (3, 3, 2)), indexing="ij"), -1).reshape(-1, 3).double()
        place = {float(image[0][tuple(i.long())]): affine[:3, :3] @ i + affine[:3, 3] for i in index}
        for pose in self.poses(image, 40):
            turned = pose["image"]
            assert turned.meta["filename_or_obj"] == "c7"
            for i in index:
                found = turned.affine[:3, :3] @ i + turned.affine[:3, 3]
                torch.testing.assert_close(found, place[float(turned[0][tuple(i.long())])])

    def test_pixels_that_are_not_square_are_not_turned(self):
        image = MetaTensor(torch.arange(9.0).reshape(1, 3, 3), affine=torch.diag(torch.tensor([1.0, 2, 1, 1])))
        assert len({tuple(pose["image"].flatten().tolist()) for pose in self.poses(image)}) == 4

    def test_the_same_seed_gives_the_same_poses_and_the_input_stays(self):
        image = torch.rand(1, 4, 4)
        before = image.clone()
        first, second = self.poses(image), self.poses(image)
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second))
        assert torch.equal(image, before)


class TestKeepRaterd:
    def test_one_rater_or_all(self):
        label = torch.arange(3)[:, None, None].expand(3, 2, 2)
        assert torch.equal(KeepRaterd("label", rater=1)(item(label))["label"], label[1:2])
        assert torch.equal(KeepRaterd("label")(item(label))["label"], label)

    @pytest.mark.parametrize("rater", [-1, 1, 3])
    def test_a_rater_without_a_mask_is_named(self, rater):
        label = torch.zeros(3, 2, 2).long()
        label[1] = -1
        with pytest.raises(ValueError, match=f"Case 'c7' has no mask of rater {rater} .3 raters"):
            KeepRaterd("label", rater=rater)(item(label))
