"""Kvasir-SEG: colonoscopy images with one outline of the polyp each.

References: Jha et al., "Kvasir-SEG: A Segmented Polyp Dataset", MMM 2020, arXiv 1911.07069; grey and 128x128 as in
Valiuddin et al., "Improving Aleatoric Uncertainty Quantification in Multi-Annotated Medical Image Segmentation with
Normalizing Flows", 2021, arXiv 2108.02155 (NF-PUNet).
"""

from __future__ import annotations

from pathlib import Path

from monai_flowssn.data.cases import Case, check_cases, make_case, pick_evenly
from monai_flowssn.data.pictures import open_mask, read_picture, resize_image, resize_mask, to_bytes
from monai_flowssn.data.splits import Split

__all__ = ["kvasir"]

SUFFIXES = (".jpg", ".jpeg", ".png")


def kvasir(
    root: str | Path,
    split: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
    size: int = 128,
) -> list[Case]:
    """List the cases of one split as in-memory items, grey and resized to a square.

    `root` has images/<name>.jpg and masks/<name>.jpg, as the archive unpacks (1,000 images, 332x487 to 1920x1072
    pixels). The archive names neither a split nor patients: every image counts as a patient, so frames of one
    examination may lie in two splits.

    The paper's tenfold cross-validation trains on 90 % and chooses its epoch and reports on the other 10 %. Here
    `folds=10` trains on 80 %, chooses on 10 % and reports on 10 %, so that nothing is tuned on what is reported.
    Written for this layout; has not met the real archive.

    Args:
        root: folder of images/ and masks/.
        split: "train", "val" or "test".
        limit: at most so many evenly spaced cases, for quick runs.
        seed: of the split or folds.
        folds: number of folds of a cross-validation, 10 in the paper, None for a single split; see `splits.Split`.
        fold: the fold to test on.
        size: height and width of the resized images; the aspect becomes 1.

    Returns:
        Items with image (1, *S) uint8, label (1, *S) uint8, patient, and case.
    """
    root, part = Path(root).expanduser(), Split(split, folds=folds, fold=fold, seed=seed)
    if size < 1:
        raise ValueError(f"Got size={size}; use a positive number of pixels.")
    paths = sorted(path for path in (root / "images").glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{root} has no images/*.jpg; give the folder Kvasir-SEG with its images/ and masks/.")
    kept = part.patients([path.stem for path in paths])
    chosen = pick_evenly([path for path in paths if path.stem in kept], limit)
    return check_cases([_read(path, root, size) for path in chosen], source=root, split=split)


def _read(path: Path, root: Path, size: int) -> Case:
    image = to_bytes(read_picture(path, channels=1), path)
    label = resize_mask(open_mask(root / "masks" / path.name, like=image), (size, size))[None]
    return make_case(resize_image(image, (size, size)), label, patient=path.stem, case=path.stem)
