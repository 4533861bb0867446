"""Transforms of one case and the masks of its raters: load, check, pad to a fixed number of raters, flip and rotate."""

from __future__ import annotations

import locale
import warnings
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, Randomizable, Transform

__all__ = ["CheckCased", "KeepRaterd", "LoadCased", "PadRatersd", "RandDihedrald"]


def _name(item: Mapping[Hashable, Any]) -> str:
    meta = getattr(item.get("image"), "meta", {})
    return f"Case '{item.get('case', meta.get('filename_or_obj', 'without a name'))}'"


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


_CTYPE = locale.setlocale(locale.LC_CTYPE)


class LoadCased(Transform):
    """Load the image and one mask file per rater with MONAI's readers, and stack the raters as (R, *S).

    MONAI's `LoadImaged` stacks a list of files too, but takes the colours of an RGB mask for more raters, and fails
    without naming the file where sizes differ. An item whose arrays are loaded already passes unchanged, so that one
    chain of transforms serves every data set; so does an item without label (inference).

    Args:
        reader: a MONAI reader or its name; by default the suffix chooses (PNG and JPEG: PIL, NIfTI: nibabel, NRRD, TIFF
            and folders of DICOM files: ITK).
    """

    def __init__(self, reader: Any = None) -> None:
        self.reader = LoadImage(reader=reader, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with image (C, *S) and label (R, *S), float32 as the readers give them."""
        item = dict(data)
        if not isinstance(item["image"], torch.Tensor):
            item["image"] = self._read(item["image"], item)
        if "label" in item and not isinstance(item["label"], torch.Tensor):
            item["label"] = self._stack(item["label"], item)
        return item

    def _read(self, path: Any, item: Mapping[Hashable, Any]) -> MetaTensor:
        try:
            image = self.reader(path)
        except Exception as error:  # every reader has its own errors
            reason = str(error).split("\n")[0]
            raise ValueError(f"{_name(item)}: {path} does not load ({reason}); replace or remove it.") from error
        finally:  # ITK's DICOM reader leaves the locale C, in which Python takes every text file for ASCII
            locale.setlocale(locale.LC_CTYPE, _CTYPE)
        image.meta["filename_or_obj"] = str(item.get("case", image.meta["filename_or_obj"]))
        return image

    def _stack(self, paths: Sequence[str | Path | None], item: Mapping[Hashable, Any]) -> MetaTensor:
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        if not any(paths):
            raise ValueError(f"{_name(item)} has no rater's mask; give at least one file under 'label'.")
        missing = torch.full_like(_plain(item["image"][:1]), -1)
        masks = [self._read_mask(path, item) if path else missing for path in paths]
        return MetaTensor(torch.cat(masks), meta={**item["image"].meta, "original_channel_dim": 0})

    def _read_mask(self, path: str | Path, item: Mapping[Hashable, Any]) -> torch.Tensor:
        mask, image = self._read(path, item), item["image"]
        if mask.ndim == image.ndim + 1 and mask.shape[-1] == 1:  # editors of volumes save a slice so
            mask = mask[..., 0]  # type: ignore[assignment]  # of a MetaTensor it is one
        if mask.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"{_name(item)}: mask {path} has size {tuple(mask.shape[1:])}, its image {tuple(image.shape[1:])}; "
                "every rater's mask needs the image's size: resample it onto the image (nearest neighbour)."
            )
        # 2-D pictures carry no geometry, and readers fill in different defaults
        if mask.ndim == 4 and not torch.allclose(mask.affine, image.affine, atol=1e-2):
            raise ValueError(
                f"{_name(item)}: mask {path} lies elsewhere in space (affine {mask.affine.tolist()}, image "
                f"{image.affine.tolist()}); resample it onto the image, or correct its header."
            )
        return _single_channel(_plain(mask), f"{_name(item)}: mask {path}")


def _single_channel(mask: torch.Tensor, name: str) -> torch.Tensor:
    """Return (1, *S) of a mask that was saved as grey (1), grey + alpha (2), RGB (3) or RGBA (4 channels)."""
    colours = mask[:1] if len(mask) == 2 else mask[:3]
    if len(mask) > 4 or not bool((colours == colours[:1]).all()):
        raise ValueError(f"{name} has {len(mask)} differing channels; save class ids as one grey channel.")
    return colours[:1]


class CheckCased(Transform):
    """Refuse a case that would spoil training or metrics, by name; else return its label in a small integer type.

    Args:
        num_classes: K; class ids are 0 to K - 1, and -1 everywhere for a rater who did not annotate the case.
        intensity_range: lowest and highest intensity that will be told apart; the first image that lies outside by nine tenths
            or more is told in a warning.
    """

    def __init__(self, *, num_classes: int, intensity_range: Sequence[float] | None = None) -> None:
        if num_classes < 2:
            raise ValueError(f"Got num_classes={num_classes}; count the background too, so at least 2.")
        self.num_classes = num_classes
        self.dtype = torch.int8 if num_classes <= 128 else torch.int16
        if intensity_range is not None and not intensity_range[0] < intensity_range[1]:
            raise ValueError(f"Got intensity_range={list(intensity_range)}; the first must be below the second.")
        self.intensity_range = intensity_range

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check image (C, *S) and label (R, *S); an item without label (inference) passes."""
        item = dict(data)
        image = _plain(item["image"])
        if image.is_floating_point() and not bool(torch.isfinite(image).all()):
            raise ValueError(f"{_name(item)}: the image has NaN or infinite values; correct or remove the case.")
        if self.intensity_range is not None:
            self._check_range(image, _name(item))
        if "label" in item:
            self._check_label(_plain(item["label"]), image, _name(item))
            item["label"] = item["label"].to(self.dtype)
        return item

    def _check_range(self, image: torch.Tensor, name: str) -> None:
        low, high = self.intensity_range or (0, 0)
        outside = ((image < low) | (image > high)).float().mean().item()
        if outside >= 0.9:
            self.intensity_range = None  # once is enough
            warnings.warn(
                f"{name}: {outside:.0%} of the image lies outside intensity_range={[low, high]} and is clipped; its intensities "
                f"go from {image.min().item():g} to {image.max().item():g}. Give --data::intensity_range ([-1000, 400] for CT).",
                stacklevel=2,
            )

    def _check_label(self, label: torch.Tensor, image: torch.Tensor, name: str) -> None:
        if label.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"{name}: rater masks have size {tuple(label.shape[1:])}, the image {tuple(image.shape[1:])}; "
                "resample the masks onto the image (nearest neighbour)."
            )
        if label.is_floating_point() and not torch.equal(label, label.round()):
            wrong = label[label != label.round()].unique()[:5].tolist()
            raise ValueError(
                f"{name}: the masks hold {wrong}, which are no class ids; threshold soft masks, and resample masks by "
                "nearest neighbour."
            )
        self._check_ids(label, name)

    def _check_ids(self, label: torch.Tensor, name: str) -> None:
        low, high = (int(value) for value in label.aminmax()) if label.numel() else (-1, -1)
        if high >= self.num_classes or low < -1:
            raise ValueError(
                f"{name}: the masks hold {label.unique()[:9].int().tolist()}, but with num_classes={self.num_classes} class ids "
                f"run from 0 to {self.num_classes - 1} (-1: not annotated). Raise num_classes, or give what the files hold for "
                'class 0, 1, ...: --data::class_values "[0, 255]".'
            )
        if low == -1:
            self._check_missing(label, name)

    def _check_missing(self, label: torch.Tensor, name: str) -> None:
        missing = (label == -1).flatten(1)
        if bool(missing.all()):
            raise ValueError(
                f"{name}: all {len(label)} raters are missing; remove the case from training and evaluation."
            )
        if not torch.equal(missing.all(1), missing.any(1)):
            raise ValueError(
                f"{name}: a mask is -1 in places; -1 means that a rater did not annotate the case and fills the whole mask."
            )


class KeepRaterd(MapTransform):
    """Keep the masks of one rater, to train as if there had been no other.

    Args:
        keys: items (R, *S).
        rater: index of the rater, counted from 0; None keeps all.
    """

    def __init__(self, keys: KeysCollection, *, rater: int | None = None) -> None:
        super().__init__(keys)
        self.rater = rater

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return (1, *S), or (R, *S) as it is."""
        item = dict(data)
        if self.rater is None:
            return item
        for key in self.key_iterator(item):
            kept = item[key][self.rater : self.rater + 1] if self.rater >= 0 else item[key][:0]
            if not len(kept) or bool((kept < 0).all()):
                raise ValueError(
                    f"{_name(item)} has no mask of rater {self.rater} ({len(item[key])} raters, counted from 0); choose a rater "
                    "who annotated every case, or leave the case out."
                )
            item[key] = kept
        return item


class PadRatersd(MapTransform):
    """Append masks of -1 up to a fixed number of raters, so that cases with different raters make one batch.

    Args:
        keys: items (R, *S) to pad.
        raters: their number afterwards, the largest of the data set.
        spatial_dims: of the network; masks of other dimensions make no batch for it.
    """

    def __init__(self, keys: KeysCollection, *, raters: int, spatial_dims: int) -> None:
        super().__init__(keys)
        if raters < 1:
            raise ValueError(f"Got raters={raters}; use the largest number of raters of a case, at least 1.")
        self.raters, self.spatial_dims = raters, spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return (raters, *S); unsigned types, which cannot hold -1, become int16."""
        item = dict(data)
        for key in self.key_iterator(item):
            label = item[key]
            if label.ndim != 1 + self.spatial_dims:
                raise ValueError(
                    f"{_name(item)} has size {tuple(label.shape[1:])}, the network spatial_dims={self.spatial_dims}; training "
                    "and evaluation need the same: save slices of volumes as 2-D images, or take the method's laptop_3d.yaml."
                )
            extra = self.raters - len(label)
            if extra < 0:
                raise ValueError(f"{_name(item)} has {len(label)} raters, but raters={self.raters}; raise `raters`.")
            if extra:
                label = label.to(torch.int16) if label.dtype == torch.uint8 else label
                item[key] = torch.cat([label, torch.full_like(label[:1], -1).expand(extra, *label.shape[1:])])
        return item


class RandDihedrald(MapTransform, Randomizable):
    """Flip and turn by 90 degrees at random: one of the eight symmetries of the square, all equally likely.

    They act on the first two spatial axes, which are in-plane in MONAI's order; volumes (C, X, Y, Z) are also flipped
    along Z half of the time. Where the plane is not square, or its pixels are not, only the four symmetries that keep
    its shape are drawn. Affines follow, so geometry stays true.

    Args:
        keys: items (C, *S) to transform alike.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)
        self._draw = 0

    def randomize(self, data: Any = None) -> None:
        """Draw three flips and one transposition as the bits of one number."""
        self._draw = int(self.R.randint(16))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with all keys in the drawn pose."""
        item = dict(data)
        self.randomize()
        for key in self.key_iterator(item):
            item[key] = self._pose(item[key])
        return item

    def _pose(self, image: torch.Tensor) -> torch.Tensor:
        array = _plain(image)
        flips = tuple(axis for axis in range(1, array.ndim) if self._draw >> axis & 1)
        turn = bool(self._draw & 1) and array.shape[1] == array.shape[2] and _has_square_pixels(image)
        posed = array.flip(flips) if flips else array
        posed = posed.transpose(1, 2) if turn else posed
        if not isinstance(image, MetaTensor):
            return posed
        # the constructor of MetaTensor would take most of the time of this transform
        result = posed.as_subclass(MetaTensor).copy_meta_from(image)
        result.affine = image.affine @ _index_map(tuple(array.shape[1:]), flips, turn).to(image.affine)
        return result


def _has_square_pixels(image: torch.Tensor) -> bool:
    if not isinstance(image, MetaTensor):
        return True
    width, height = (sum(row[axis] ** 2 for row in image.affine.tolist()[:3]) for axis in (0, 1))
    return abs(width - height) <= 1e-3 * width


@lru_cache(maxsize=256)
def _index_map(shape: tuple[int, ...], flips: tuple[int, ...], turn: bool) -> torch.Tensor:
    """Return the (4, 4) matrix from voxel indices after the pose to those before it."""
    matrix = torch.eye(4, dtype=torch.float64)
    for axis in flips:
        matrix[axis - 1, axis - 1], matrix[axis - 1, 3] = -1, shape[axis - 1] - 1
    return matrix[:, [1, 0, 2, 3]] if turn else matrix
