"""The files of a case's maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from monai_flowssn.files import written_whole
from monai_flowssn.transforms.panel import CLASS_COLOURS
from monai_flowssn.transforms.summary import case_file, case_name
from monai_flowssn.transforms.writer import CaseWriter

__all__ = ["SaveMapsd"]

LABEL_MAPS = ("draws", "segmentation")
MAPS = ("draws", "mean", "segmentation", "entropy", "expected_entropy", "mutual_information")


class SaveMapsd(CaseWriter):
    """Writes the maps of a case as `<output_dir>/<case>/<case>_<map>` with the extension of the format.

    NIfTI keeps the affine. A single map is saved as (*S), so that it has the shape of the input; draws, and the mean
    of several foreground classes, as (x, y, z, n), with z = 1 for a 2-D image. Label maps are uint8, others float32.

    PNG is for 2-D images, one file per map and draw: label maps hold the class ids, with a palette; probabilities are
    scaled from [0, 1], and entropies from [0, log K], to [0, 255], which each file states in its text entry `scale`.

    MONAI's `SaveImaged` is not used, because its names lose what follows a dot in a case id (cases overwrite each
    other), it follows ".." out of its folder, and it drops a last axis of length 1.

    Args:
        output_dir: folder of all outputs; each case gets its own folder in it.
        output_ext: ".nii.gz" or ".png"; None takes PNG for colour pictures, 2-D with three channels
            and pixels of unit size, and NIfTI for all others.
        image_key: the image (C, *S).
    """

    def __init__(self, output_dir: str | Path, *, output_ext: str | None = None, image_key: str = "image") -> None:
        if output_ext not in (None, ".nii.gz", ".nii", ".png"):
            raise ValueError(f"output_ext is '.nii.gz', '.nii', '.png' or None (by the image); got {output_ext!r}.")
        super().__init__(output_dir)
        self.output_ext = output_ext
        self.image_key = image_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Write the maps of one case.

        Args:
            data: a case with the maps of :class:`DrawsToMapsd`.

        Returns:
            The case as it came.
        """
        image = data[self.image_key]
        # three contrasts of a scanner, which have a pixel size, would lose it in a PNG
        colour = image.ndim == 3 and len(image) == 3 and np.allclose(data["segmentation"].pixdim, 1, atol=1e-3)
        extension = self.output_ext or (".png" if colour else ".nii.gz")
        case = case_name(data, data["segmentation"])
        for name in MAPS:
            values = data[name]
            if name in LABEL_MAPS and values.is_floating_point():  # after Invertd
                values = values.round().to(torch.uint8)
            if extension == ".png":
                _save_png(values, name, log_classes=np.log(len(data["mean"]) + 1), folder=self.output_dir, case=case)
            else:
                _save_nifti(values, name, path=case_file(self.output_dir, case, name + extension))
        return dict(data)


def _save_nifti(values: MetaTensor, name: str, *, path: Path) -> None:
    array = values.numpy(force=True)
    several = name == "draws" or len(array) > 1
    if several:  # (n, x, y[, z]) -> (x, y, z, n)
        array = np.moveaxis(array if array.ndim == 4 else array[..., None], 0, -1)
    image = nib.Nifti1Image(array if several else array[0], to_affine_nd(3, values.affine.numpy(force=True)))
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    with written_whole(path) as temporary:
        nib.save(image, temporary)


def _save_png(values: MetaTensor, name: str, *, log_classes: float, folder: str | Path, case: str) -> None:
    if values.ndim != 3:
        raise ValueError(f"PNG files hold 2-D maps; got the size {tuple(values.shape[1:])}. Use output_ext='.nii.gz'.")
    single = case_file(folder, case, f"{name}.png")
    for stale in single.parent.glob(f"{single.stem}_[0-9]*.png"):  # of an earlier run with more draws
        stale.unlink()
    several = name == "draws" or len(values) > 1
    first = 1 if name == "mean" else 0  # the mean has no background
    for i, plane in enumerate(values.numpy(force=True), start=first):
        path = single.with_name(f"{single.stem}_{i:03d}.png") if several else single
        with written_whole(path) as temporary:
            _write_png(plane.T, name, log_classes=log_classes, path=temporary)


def _write_png(rows: np.ndarray, name: str, *, log_classes: float, path: Path) -> None:
    text = PngInfo()
    if name in LABEL_MAPS:
        picture = Image.fromarray(rows)
        picture.putpalette([0, 0, 0, *(level for k in range(255) for level in _rgb(k))])
        text.add_text("scale", "pixel value = class id")
    else:
        top = 1.0 if name == "mean" else log_classes
        picture = Image.fromarray(np.rint(np.clip(rows / top, 0, 1) * 255).astype(np.uint8))
        text.add_text("scale", f"{name} = pixel value / 255 * {top:.6f}{'' if name == 'mean' else ' nats'}")
    picture.save(path, pnginfo=text)


def _rgb(index: int) -> tuple[int, ...]:
    return tuple(bytes.fromhex(CLASS_COLOURS[index % len(CLASS_COLOURS)].removeprefix("#")))
