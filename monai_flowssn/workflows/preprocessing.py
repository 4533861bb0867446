"""What is known of a data set, and how its images become what a network sees."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from monai.transforms import (
    CenterSpatialCropd,
    EnsureTyped,
    RandSpatialCropd,
    Resized,
    ScaleIntensityRanged,
    SelectItemsd,
    SpatialPadd,
    Transform,
)
from monai.utils import ensure_tuple

from monai_flowssn.data.cases import case_title
from monai_flowssn.data.dicom import CHOICES as SERIES
from monai_flowssn.options import check_option
from monai_flowssn.transforms import (
    CheckCased,
    CropOnPointd,
    CropOnRatersd,
    KeepRaterd,
    LoadCased,
    LocatePointd,
    OneSliced,
    PadRatersd,
    RandCropOnRatersd,
    ScaleOwnRanged,
)

__all__ = ["Data"]

CROPS = ("centre", "anywhere", "whole")
KEYS = ["image", "label"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set: its cases, what its files hold, and the transforms that follow from that.

    Training, validation, evaluation and inference have one chain each (methods below), all of them from the same facts, so that
    a model is used as it was trained. What training sees of an image, the others see: its centre (``crops="centre"``); windows
    anywhere in it (``"anywhere"``), and then validation sees the window on the annotations, inference all of it, window by
    window; or the whole image, resized (``"whole"``).

    Args:
        name: for MLflow and the manifest.
        cases: function of ``split``, ``limit``, ``folds`` and ``fold`` that lists cases, such as
            :func:`monai_flowssn.data.lidc` with its ``root``.
        channels: of an image.
        num_classes: K, the background included.
        raters: the largest number of raters R of a case.
        intensity_range: intensities that become -1 and 1; what lies beyond is clipped. None for the lowest and the highest of
            each image.
        class_values: what the files of masks hold for class 0, 1, ..., such as [0, 255]; empty where they hold class ids.
        series: "one" where a DICOM folder has to hold one series, or "longest" of several, which a warning names.
        crops: one of those above.
        jitter: for ``crops="centre"``, by how many pixels the centre of a window of training is off, at most, along each axis.
        context: where ``intensity_range`` is None and an image has a point: size of the window around it whose lowest and highest
            intensity are taken; None for those of the whole image.
        geometry: transforms to one geometry for all images, such as ``Spacingd``; undone in what inference writes.
        augmentation: random transforms of a window, for training alone.
        train_rater: index of the only rater to train on, from 0; None for all. Validation is always on all.
        folds: of a cross-validation by patient; None for the data set's own split.
        fold: the fold to test on; the next one validates.

    Raises:
        ValueError: for other ``crops``, or an ``intensity_range`` or ``class_values`` that are no such numbers.
    """

    name: str
    cases: Callable[..., list[dict[str, Any]]]
    channels: int
    num_classes: int
    raters: int
    intensity_range: Sequence[float] | None
    class_values: Sequence[int] = ()
    series: str = "one"
    crops: str = "centre"
    jitter: int = 0
    context: Sequence[int] | None = None
    geometry: Sequence[Transform] = ()
    augmentation: Sequence[Transform] = ()
    train_rater: int | None = None
    folds: int | None = None
    fold: int = 0

    def __post_init__(self) -> None:
        check_option("crops", self.crops, CROPS)
        check_option("series", self.series, SERIES)
        if self.jitter < 0:
            raise ValueError(f"jitter is {self.jitter}; it is a number of pixels: pass 0 or more.")
        if self.intensity_range is not None and not _is_range(self.intensity_range):
            raise ValueError(
                f"intensity_range is {self.intensity_range!r}; give two numbers, the lower first, such as [-1000, 400]."
            )
        if not all(isinstance(value, (int, float)) for value in ensure_tuple(self.class_values)):
            raise ValueError(f"class_values is {self.class_values!r}; give a list of numbers, such as [0, 255].")

    def items(
        self,
        split: str,
        limit: int | None = None,
        *,
        image: str | Sequence[str] | None = None,
        point: Sequence[int] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the cases of ``split``, "train", "val" or "test"; of more than ``limit``, so many at even distances.

        Args:
            split: as above.
            limit: None for all.
            image: for inference, a file, a folder of one DICOM series, or several, instead of the cases of the data set.
            point: for inference, voxel indices in the image of each case: the window around it is drawn. A case may have its own,
                ``item["point"]``.
        """
        if image is None:
            cases = self.cases(split=split, limit=limit, folds=self.folds, fold=self.fold)
        else:
            cases = [{"image": str(each), "patient": str(each)} for each in ensure_tuple(image)]
        return cases if point is None else [{**case, "point": point} for case in cases]

    def annotated(self, split: str, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the cases of ``split`` that some rater annotated; a warning counts and names the others, which score nothing.

        Args:
            split: as of :meth:`items`, and limit, which counts both.
            limit: None for all.

        Raises:
            ValueError: if no case is annotated.
        """
        cases = self.items(split, limit)
        bare = [case_title(case) for case in cases if case.get("label") is None]
        if bare:
            told = f"{len(bare)} of {len(cases)} cases of {split} have no masks ({', '.join(bare[:5])})"
            if len(bare) == len(cases):
                raise ValueError(f"{told}; there is nothing to compare draws with: give masks under 'label'.")
            warnings.warn(f"{told} and are left out.", stacklevel=2)
        return [case for case in cases if case.get("label") is not None]

    @property
    def fold_dir(self) -> str:
        """What is added to the folders of models and results: each fold has its own."""
        return "" if self.folds is None else f"/fold_{self.fold}"

    @property
    def kept(self) -> dict[str, Any]:
        """What must not change while a training is continued, by the option that it is."""
        names = ("folds", "fold", "train_rater", "intensity_range", "class_values")
        return {f"data::{name}": getattr(self, name) for name in names}

    @property
    def seen(self) -> dict[str, Any]:
        """What a network sees of an image, and its classes, by the option that it is: the same wherever a model is used."""
        names = ("channels", "num_classes", "intensity_range", "class_values", "crops", "context")
        values = {f"data::{name}": getattr(self, name) for name in names}
        return {name: list(each) if isinstance(each, (list, tuple)) else each for name, each in values.items()}

    def training(self, spatial_size: Sequence[int]) -> list[Transform]:
        """Return what makes (C, *spatial_size) and (R, *spatial_size) of a case, anew each time from the first random one on."""
        # plain tensors: the metadata that MONAI tracks costs more than the transforms
        plain = EnsureTyped(KEYS, track_meta=False)
        cached: list[Transform] = [self._fit(spatial_size)]
        window: list[Transform] = []
        if self.crops == "anywhere":
            cached, window = [], [RandCropOnRatersd(KEYS, spatial_size=spatial_size)]
        elif self.crops == "centre" and self.jitter:
            room = [size + 2 * self.jitter for size in spatial_size]
            cached = [CenterSpatialCropd(KEYS, room), SpatialPadd(KEYS, spatial_size, mode="edge")]
            window = [RandSpatialCropd(KEYS, spatial_size, random_size=False)]
        return [
            *self._read(len(spatial_size), flat=self._flat(spatial_size)),
            *([] if self.train_rater is None else [KeepRaterd("label", rater=self.train_rater)]),
            *cached,
            *self._batch(spatial_size),
            plain,
            *window,
            *self.augmentation,
        ]

    def validation(self, spatial_size: Sequence[int]) -> list[Transform]:
        """Return what makes (C, *spatial_size) and (R, *spatial_size) of a case."""
        return self.evaluation(spatial_size, window=None)

    def evaluation(self, spatial_size: Sequence[int], window: Sequence[int] | None) -> list[Transform]:
        """Return the same, but of the whole image where it is drawn by windows."""
        return [
            *self._read(len(spatial_size), flat=self._flat(spatial_size)),
            *([] if window else [self._fit(spatial_size)]),
            *self._batch(spatial_size),
        ]

    def inference(self, spatial_size: Sequence[int], window: Sequence[int] | None) -> list[Transform]:
        """Return what makes the image of a case, with or without masks, what the network draws; around its point, if any."""
        clicked = self.crops != "whole"
        context = [CropOnPointd(KEYS, spatial_size=self.context)] if clicked and self.context else []
        around = [CropOnPointd(KEYS, spatial_size=spatial_size)] if clicked else []
        fit = [] if window or self.crops == "anywhere" else [self._fit(spatial_size)]
        return [*self._read(len(spatial_size), [LocatePointd(allowed=clicked)], context), *around, *fit]

    def scaling(self, spatial_dims: int) -> Transform:
        """Return what makes [-1, 1] of the intensities of an image; of each slice, for a 2-D network and no given range."""
        if self.intensity_range is None:
            return ScaleOwnRanged("image", spatial_dims=spatial_dims)
        low, high = self.intensity_range
        return ScaleIntensityRanged("image", low, high, -1, 1, clip=True)

    @staticmethod
    def _flat(spatial_size: Sequence[int]) -> list[Transform]:
        return [OneSliced(KEYS)] if len(spatial_size) == 2 else []

    def _read(
        self,
        spatial_dims: int,
        locate: Sequence[Transform] = (),
        context: Sequence[Transform] = (),
        flat: Sequence[Transform] = (),
    ) -> list[Transform]:
        check = CheckCased(
            num_classes=self.num_classes, class_values=self.class_values, intensity_range=self.intensity_range
        )
        load, scale = LoadCased(series=self.series), self.scaling(spatial_dims)
        if self.intensity_range is None:
            return [load, *flat, *locate, check, *self.geometry, *context, scale]
        return [load, *flat, *locate, check, scale, *self.geometry]

    def _fit(self, spatial_size: Sequence[int]) -> Transform:
        if self.crops == "whole":
            return Resized(KEYS, spatial_size, mode=["area", "nearest-exact"], allow_missing_keys=True)
        return CropOnRatersd(KEYS, spatial_size=spatial_size, label_key=None if self.crops == "centre" else "label")

    def _batch(self, spatial_size: Sequence[int]) -> list[Transform]:
        """Return what lets cases with different raters make one batch."""
        # other items, such as a field of view, are not cropped
        used = SelectItemsd([*KEYS, "case", "patient"], allow_missing_keys=True)
        return [PadRatersd("label", raters=self.raters, spatial_dims=len(spatial_size)), used]


def _is_range(values: Any) -> bool:
    numbers = (
        isinstance(values, (list, tuple)) and len(values) == 2 and all(isinstance(v, (int, float)) for v in values)
    )
    return numbers and -math.inf < values[0] < values[1] < math.inf
