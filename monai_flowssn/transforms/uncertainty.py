"""From the draws of a case to its maps (mean, majority, entropies), and their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import Transform
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from monai_flowssn.files import written_whole
from monai_flowssn.transforms.panel import CLASS_COLOURS
from monai_flowssn.transforms.summary import case_file, case_name
from monai_flowssn.transforms.writer import CaseWriter

LABEL_MAPS = ("draws", "majority")
MAPS = ("draws", "mean", "majority", "entropy", "expected_entropy", "mutual_information")


def entropy(probabilities: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Shannon entropy in nats, H[p] = -sum_k p_k log p_k, with 0 log 0 = 0.

    Args:
        probabilities: class probabilities, such as (K, *S).
        dim: the axis of the classes.

    Example:
        >>> float(entropy(torch.tensor([0.5, 0.5])))  # log 2
        0.6931471824645996
    """
    return torch.special.entr(probabilities).sum(dim)


def mean_probability(pred: torch.Tensor) -> torch.Tensor:
    """The mean draw p(class | image), one map per class.

    Args:
        pred: class probabilities of the draws of one case, (N, K, *S).

    Returns:
        (K, *S) float32.
    """
    return _collect(pred)["mean"]


def expected_entropy(pred: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the single draws in nats, 1/N sum_n H[p_n]: what a draw itself leaves undecided.

    Args:
        pred: class probabilities of the draws of one case, (N, K, *S).

    Returns:
        (*S) float32.
    """
    return _collect(pred)["expected_entropy"]


def mutual_information(pred: torch.Tensor) -> torch.Tensor:
    """Disagreement between the draws in nats: mutual information of the class and the draw.

    MI = H[1/N sum_n p_n] - 1/N sum_n H[p_n] >= 0 (the Jensen-Shannon divergence of the draws), with rounding below 0
    clamped. It is 0 where all draws agree, and at most log min(N, K).

    Reference: Depeweg et al. (2018), arXiv:1710.07283, where the draws are those of the weights.

    Args:
        pred: class probabilities of the draws of one case, (N, K, *S).

    Returns:
        (*S) float32.
    """
    collected = _collect(pred)
    return (entropy(collected["mean"]) - collected["expected_entropy"]).clamp_min(0)


def _collect(pred: torch.Tensor) -> dict[str, torch.Tensor]:
    return collect_draws([pred], pred.new_empty((len(pred), *pred.shape[2:]), dtype=torch.uint8))


def collect_draws(chunks: Iterable[torch.Tensor], labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Reduce draws to what their maps are made of, one draw at a time, so that they need not be held.

    Args:
        chunks: class probabilities of some draws of one case each, (M, K, *S), N draws in all.
        labels: (N, *S) uint8, which is filled with the arg max of every draw.

    Returns:
        ``labels``; ``mean`` (K, *S) and ``expected_entropy`` (*S), float32.
    """
    total = inner = torch.zeros(())
    made = 0
    for chunk in chunks:
        for draw in chunk.float():
            labels[made].copy_(draw.argmax(dim=0))
            total = total.add_(draw) if made else draw.clone()
            inner = inner.add_(entropy(draw)) if made else entropy(draw)
            made += 1
        del chunk, draw  # before the next is made
    if made != len(labels):
        raise ValueError(f"{made} draws came for label maps of {len(labels)}; they must be as many.")
    return {"labels": labels, "mean": total.div_(made), "expected_entropy": inner.div_(made)}


class DrawsToMapsd(Transform):
    """Adds the maps of a case that the rest reads; all carry the image's affine and meta data.

    `draws` (N, *S) uint8 label maps, arg max of every draw; `mean` (K - 1, *S) float32, the mean probability of the
    foreground classes (background is the rest, so that what `Invertd` pads with 0 is background); `majority` (1, *S)
    uint8, arg max of the mean of all K classes; `entropy`, `expected_entropy` and `mutual_information` (1, *S)
    float32, in nats, entropy = expected_entropy + mutual_information.

    Args:
        keys: key of the draws, class probabilities (N, K, *S), or of what :func:`collect_draws` makes of them.
        image_key: the image (C, *S) that the draws belong to.
    """

    def __init__(self, keys: str = "pred", *, image_key: str = "image") -> None:
        self.keys = keys
        self.image_key = image_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Add the maps to one decollated case.

        Args:
            data: the case.

        Returns:
            The case with its maps.
        """
        image, pred = data[self.image_key], data[self.keys]
        if not isinstance(pred, Mapping):
            pred = pred.as_tensor() if isinstance(pred, MetaTensor) else pred
            _check_draws(pred, image)
            pred = _collect(pred)
        return {**data, **{name: _with_meta_of(image, values) for name, values in _maps(pred).items()}}


def _maps(collected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    mean, expected = collected["mean"], collected["expected_entropy"]
    total = entropy(mean)
    return {
        "draws": collected["labels"],
        "mean": mean[1:],
        "majority": mean.argmax(dim=0, keepdim=True).to(torch.uint8),
        "entropy": total[None],
        "expected_entropy": expected[None],
        "mutual_information": (total - expected).clamp_min(0)[None],
    }


def _check_draws(pred: torch.Tensor, image: torch.Tensor) -> None:
    if pred.ndim not in (4, 5) or len(pred) == 0 or not 2 <= pred.shape[1] <= 256:
        raise ValueError(
            f"Draws of one case have the shape (N, K, *S), N >= 1, 2 <= K <= 256, in 2-D or 3-D; got "
            f"{tuple(pred.shape)}. Decollate the batch first; for a single map (K, *S) pass `pred[None]`."
        )
    if pred.shape[2:] != image.shape[1:]:
        raise ValueError(
            f"Draws and their image have the same size; got {tuple(pred.shape[2:])} and {tuple(image.shape[1:])}. "
            "Compute the maps before `Invertd`, then invert the maps."
        )


def _with_meta_of(image: torch.Tensor, values: torch.Tensor) -> MetaTensor:
    if not isinstance(image, MetaTensor):
        return MetaTensor(values)
    return MetaTensor(values, meta=dict(image.meta), applied_operations=list(image.applied_operations))


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
        colour = image.ndim == 3 and len(image) == 3 and np.allclose(data["majority"].pixdim, 1, atol=1e-3)
        extension = self.output_ext or (".png" if colour else ".nii.gz")
        case = case_name(data, data["majority"])
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
