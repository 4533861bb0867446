"""One way from a file to an array that knows where it lies, for images and for masks of every format."""

from __future__ import annotations

import locale
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from monai_flowssn.annotations import MISSING
from monai_flowssn.data.cases import case_title
from monai_flowssn.data.dicom import SUFFIXES as DICOM
from monai_flowssn.data.dicom import SeriesReader, why
from monai_flowssn.data.geometry import check_affine, check_same_place, whole_affine
from monai_flowssn.data.pictures import SUFFIXES as PICTURES
from monai_flowssn.data.pictures import read_picture, read_picture_mask

__all__ = ["load_case", "read_image", "read_mask"]

PLACED = "placed"  # in the meta data: whether the file says where it lies in space
_CTYPE = locale.setlocale(locale.LC_CTYPE)
_PICTURES = (*PICTURES, *(f"{suffix}.gz" for suffix in PICTURES))


def load_case(item: Mapping[Any, Any], *, series: str = "one") -> dict[Hashable, Any]:
    """Load the image of a case and one mask file per rater, and stack the raters as (R, *S).

    What is in memory already stays, and so does a case without label (inference).

    Args:
        item: see `cases.Case`.
        series: as of :func:`read_image`.

    Returns:
        The case with image (C, *S) float32 and label (R, *S), in the values of the files, -1 where a rater has none.

    Raises:
        ValueError: with case and file, for what does not load or lies elsewhere than its image.
    """
    item = dict(item)
    try:
        if not isinstance(item["image"], torch.Tensor):
            item["image"] = read_image(item["image"], series=series)
            item["image"].meta["filename_or_obj"] = str(item.get("case", item["image"].meta["filename_or_obj"]))
        if "label" in item and not isinstance(item["label"], torch.Tensor):
            item["label"] = _stack(item["label"], item["image"])
    except ValueError as error:
        raise ValueError(f"{case_title(item)}: {error}") from error
    return item


def _stack(paths: str | Path | Sequence[str | Path | None], image: MetaTensor) -> MetaTensor:
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not any(paths):
        raise ValueError("no rater's mask; give at least one file under 'label'.")
    missing = torch.full(image[:1].shape, MISSING, dtype=torch.int16)
    masks = [read_mask(path, like=image) if path else missing for path in paths]
    return MetaTensor(torch.cat(masks), meta=image.meta)


def read_image(path: str | Path | Sequence[str | Path], *, series: str = "one") -> MetaTensor:
    """Read a picture (see `data.pictures`), NIfTI, NRRD, MetaImage, DICOM file, folder of one DICOM series, or NumPy array.

    Args:
        path: a file or folder, or several of the same grid, whose channels are stacked.
        series: "one" where a folder has to hold one DICOM series, or "longest" of several, which a warning names.

    Returns:
        (C, *S) float32 in 2-D or 3-D, with an affine (4, 4) in RAS from indices to mm: the identity where the file has none.

    Raises:
        ValueError: if a file does not load, has no sound geometry, or lies elsewhere than the first.
    """
    if isinstance(path, (str, Path)):
        return _convert(_load(str(path), series=series), torch.float32)
    images = [read_image(each, series=series) for each in path]
    if not images:
        raise ValueError("the list of image files is empty; name one file per channel.")
    for each, name in zip(images[1:], path[1:]):
        _check_grid(each, images[0], f"channel {name}")
    return MetaTensor(torch.cat([each.as_tensor() for each in images]), meta=images[0].meta)


def read_mask(path: str | Path, *, like: MetaTensor) -> torch.Tensor:
    """Read the mask of one rater, in the values that the file holds.

    Args:
        path: a file, as of :func:`read_image`.
        like: the image (C, *S), on whose grid the mask must lie.

    Returns:
        (1, *S): int16 where that holds all values, else the type of the file.

    Raises:
        ValueError: if it does not load, has several channels, or lies elsewhere than the image.
    """
    mask = _load(str(path), mask=True)
    if mask.ndim == like.ndim + 1 and mask.shape[-1] == 1:  # editors of volumes save a slice so
        mask = mask[..., 0]  # type: ignore[assignment]  # of a MetaTensor it is one
    if len(mask) > 1:
        raise ValueError(f"mask {path} has {len(mask)} channels{_look_one_hot(mask)}; save class ids as one channel.")
    _check_grid(mask, like, f"mask {path}")
    return _narrowed(mask.as_tensor())


def _load(path: str, *, mask: bool = False, series: str = "one") -> MetaTensor:
    """Return (C, *S) in the type of the file, with an affine (4, 4)."""
    suffix = "".join(Path(path).suffixes[-2:]).lower()
    try:
        if not Path(path).is_dir() and suffix.endswith(_PICTURES):
            array = read_picture_mask(path)[None] if mask else read_picture(path)
            image = MetaTensor(torch.from_numpy(_signed(array)), affine=torch.eye(4))
            placed = False
        else:
            dicom = Path(path).is_dir() or Path(path).suffix.lower() in DICOM
            image = _loader()(path, reader=SeriesReader(choice=series) if dicom else None)
            if dicom and image.shape[-1] == 1 and image.ndim == 4:  # one frame is a plane
                image = image[..., 0]
            if path.lower().endswith((".nii", ".nii.gz")):
                _check_nifti(path, image)
            placed = not path.lower().endswith((".npy", ".npz"))
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path} does not load ({error}).") from error
    except Exception as error:  # every reader has its own errors
        raise ValueError(f"{path} does not load ({why(error)}); replace it with a good copy.") from error
    finally:  # ITK's DICOM reader leaves the locale C, in which Python takes every text file for ASCII
        locale.setlocale(locale.LC_CTYPE, _CTYPE)
    if image.ndim not in (3, 4) or 0 in image.shape or image.is_complex():
        raise ValueError(f"{path} has shape {tuple(image.shape)} {image.dtype}; save real numbers in 2-D or 3-D.")
    affine = whole_affine(image.affine)
    check_affine(affine, image.ndim - 1, path)
    meta = {"filename_or_obj": path, "original_channel_dim": 0, "spatial_shape": tuple(image.shape[1:]), PLACED: placed}
    return MetaTensor(image.as_tensor(), affine=torch.from_numpy(affine), meta=meta)


@lru_cache(maxsize=1)
def _loader() -> LoadImage:  # it tells what decoders it lacks, and only those who read files need to hear
    return LoadImage(ensure_channel_first=True, dtype=None)


def _check_nifti(path: str, image: MetaTensor) -> None:
    """Refuse a header that says two things, of which MONAI and other readers choose different ones."""
    file: Any = nibabel.load(path)
    unit = file.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise ValueError(f"{path} has its geometry in {unit}; write it again in mm.")
    if not np.allclose(file.affine, whole_affine(image.affine), atol=1e-4):
        raise ValueError(
            f"{path} contradicts itself: pixels of {np.round(file.header.get_zooms(), 4).tolist()} mm, and the affine "
            f"{np.round(file.affine, 4).tolist()}; write its header again (pixdim, sform and qform must agree)."
        )


def _convert(image: MetaTensor, dtype: torch.dtype) -> MetaTensor:
    return MetaTensor(image.as_tensor().to(dtype), meta=image.meta)


def _signed(array: np.ndarray) -> np.ndarray:
    """Return uint16, with which PyTorch hardly calculates, as int32."""
    return array.astype(np.int32) if array.dtype == np.uint16 else array


def _narrowed(mask: torch.Tensor) -> torch.Tensor:
    """Return int16 if that holds every value, else the mask as it is."""
    if mask.dtype in (torch.uint8, torch.int8, torch.bool, torch.int16):
        return mask.to(torch.int16)
    low, high = mask.aminmax()
    whole = not mask.is_floating_point() or bool((mask == mask.round()).all())
    return mask.to(torch.int16) if whole and low >= -(2**15) and high < 2**15 else mask


def _check_grid(mask: MetaTensor, image: MetaTensor, name: str) -> None:
    if mask.shape[1:] != image.shape[1:]:
        raise ValueError(
            f"{name} has size {tuple(mask.shape[1:])}, its image {tuple(image.shape[1:])}; both need the same: resample it onto "
            "the image (masks by nearest neighbour)."
        )
    first, second = mask.affine.numpy(), image.affine.numpy()
    if mask.meta[PLACED] and image.meta[PLACED]:
        check_same_place(first, second, mask.shape[1:], name)
    elif mask.meta[PLACED] != image.meta[PLACED] and not _is_upright(first if mask.meta[PLACED] else second):
        raise ValueError(
            f"{name}: one of it and its image is a picture, the other is turned or flipped in space (affine "
            f"{first.tolist()}, image {second.tolist()}); save both in one format."
        )


def _is_upright(affine: np.ndarray) -> bool:
    """Whether a file may have been made from a picture: its axes are those of RAS or, from ITK, of LPS."""
    axes = affine[:2, :2] / np.linalg.norm(affine[:2, :2], axis=0).clip(1e-12)
    return any(np.allclose(axes, sign * np.eye(2), atol=1e-3) for sign in (1, -1))


def _look_one_hot(mask: MetaTensor) -> str:
    counts = mask.as_tensor().double().sum(0)
    return " (it looks one-hot: take the argmax)" if bool((counts == 1).all()) else ""
