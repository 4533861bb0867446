"""Windows on what the raters annotated."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Crop, InvertibleTransform, MapTransform, Pad, Randomizable
from monai.utils import ensure_tuple
from torch import Tensor
from torch.nn import functional as F


class CropOnRatersd(MapTransform, InvertibleTransform):
    """Crop the window on the annotations of a case; images that are smaller are padded by their edges.

    Its centre is that of the box around all annotated pixels, as in the crops of LIDC-IDRI. Annotations that do not fit into
    one window get the one that holds most of them. Without annotations it is the centre of the image.

    Args:
        keys: items (C, *S) to crop alike.
        spatial_size: of the window; axes that it does not have, such as the third of a volume for a 2-D network, stay whole.
        label_key: the raters' masks (R, *S), above 0 where annotated; ``None`` looks at no masks.

    Raises:
        ValueError: if ``spatial_size`` is not that of 2 or 3 axes.
    """

    def __init__(self, keys: KeysCollection, *, spatial_size: Sequence[int], label_key: str | None = "label") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.spatial_size, self.label_key = _one_per_axis(spatial_size), label_key
        self.pad, self.crop = Pad(mode="edge"), Crop()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with all keys cropped to (C, *spatial_size)."""
        item = dict(data)
        size = tuple(item[next(self.key_iterator(item))].shape[1:])
        window = _whole_axes(self.spatial_size, size)
        width = _lacking(window, size)
        for key in self.key_iterator(item):
            item[key] = self.pad(item[key], to_pad=[(0, 0), *width])  # type: ignore[arg-type]  # MONAI's hint is that of one axis
        start = self.first_corner(item, item[next(self.key_iterator(item))], window)
        slices = Crop.compute_slices(roi_start=start, roi_end=[s + w for s, w in zip(start, window)])
        for key in self.key_iterator(item):
            item[key] = self.crop(item[key], slices)
        return item

    def first_corner(self, item: Mapping[Hashable, Any], like: Any, window: Sequence[int]) -> list[int]:
        """Return where the window begins in the padded image ``like`` (C, *S)."""
        return _busiest_window(_annotated(item.get(self.label_key), like.shape[1:]), window)

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the windows back where they came from, with zeros around them."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.pad.inverse(self.crop.inverse(item[key]))
        return item


class RandCropOnRatersd(MapTransform, Randomizable):
    """Crop a random window, as a network must see them that is to look at whole images; small images are padded by their edges.

    A share of the windows holds an annotated pixel drawn at random, anywhere in the window; the others lie anywhere. (MONAI's
    ``RandCropByPosNegLabel`` has the pixel in the centre of the window, and the network learns that it is there.)

    Args:
        keys: items (C, *S) to crop alike; what comes out is plain tensors.
        spatial_size: of the window.
        annotated: the share of windows that hold an annotated pixel, in [0, 1].
        label_key: the raters' masks (R, *S), above 0 where annotated.

    Raises:
        ValueError: if ``annotated`` is not in [0, 1], or ``spatial_size`` not that of 2 or 3 axes.
    """

    def __init__(
        self, keys: KeysCollection, *, spatial_size: Sequence[int], annotated: float = 0.75, label_key: str = "label"
    ) -> None:
        super().__init__(keys)
        if not 0 <= annotated <= 1:
            raise ValueError(f"annotated is {annotated}; it is the share of windows on annotated pixels: pass 0 to 1.")
        self.spatial_size, self.annotated, self.label_key = _one_per_axis(spatial_size), annotated, label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with all keys cropped to (C, *spatial_size)."""
        item = dict(data)
        size = tuple(item[next(self.key_iterator(item))].shape[1:])
        window = _whole_axes(self.spatial_size, size)
        width = _lacking(window, size)
        for key in self.key_iterator(item):
            item[key] = _pad(torch.as_tensor(item[key]), width)
        label = item[self.label_key]
        start = self._start(_annotated(label, label.shape[1:]), window)
        place = (slice(None), *(slice(s, s + w) for s, w in zip(start, window)))
        for key in self.key_iterator(item):
            item[key] = item[key][place]
        return item

    def _start(self, annotated: Tensor, window: Sequence[int]) -> list[int]:
        """Return the first corner of a window, inside the image."""
        last = [s - w for s, w in zip(annotated.shape, window)]
        if self.R.random() < self.annotated and annotated.any():
            pixels = annotated.nonzero()
            pixel = pixels[self.R.randint(len(pixels))].tolist()
            return [min(max(p - int(self.R.randint(w)), 0), most) for p, w, most in zip(pixel, window, last)]
        return [int(self.R.randint(most + 1)) for most in last]


def _one_per_axis(spatial_size: Sequence[int]) -> tuple[int, ...]:
    sizes = ensure_tuple(spatial_size)
    if len(sizes) not in (2, 3):
        raise ValueError(f"spatial_size is {spatial_size}; it needs one size per axis, such as [128, 128].")
    return sizes


def _whole_axes(window: tuple[int, ...], size: Sequence[int]) -> tuple[int, ...]:
    """Return the window with all axes of an image of a size."""
    return window + tuple(size[len(window) :])


def _lacking(window: Sequence[int], size: Sequence[int]) -> list[tuple[int, int]]:
    """Return what an image of a size lacks of a window, before and after along each axis."""
    missing = [max(w - s, 0) for w, s in zip(window, size)]
    return [(m // 2, m - m // 2) for m in missing]


def _pad(image: Tensor, width: list[tuple[int, int]]) -> Tensor:
    """Return the plain tensor (C, *S), padded by its edges."""
    image = image.as_subclass(Tensor)
    if not any(map(sum, width)):
        return image
    edges = [edge for pair in reversed(width) for edge in pair]
    return F.pad(image[None].double(), edges, mode="replicate")[0].to(image.dtype)


def _annotated(label: Tensor | None, size: Sequence[int]) -> Tensor:
    """Return where (*S) any rater marked a class."""
    if label is None:
        return torch.zeros(tuple(size), dtype=torch.bool)
    return torch.as_tensor(label > 0).as_subclass(Tensor).any(dim=0)


def _busiest_window(annotated: Tensor, window: Sequence[int]) -> list[int]:
    """Return the first corner of the window on the annotations (*S)."""
    size = annotated.shape
    everything = torch.tensor([[0] * len(size), [s - 1 for s in size]])
    pixels = annotated.nonzero() if annotated.any() else everything
    first, end = pixels.amin(dim=0), pixels.amax(dim=0) + 1
    start = [min(max(int(c) - w // 2, 0), s - w) for c, w, s in zip((first + end) // 2, window, size)]
    if pixels is everything or bool((end - first <= torch.tensor(window)).all()):
        return start
    counts = annotated.long()
    for axis, w in enumerate(window):  # sums over all windows, one axis at a time
        sums = F.pad(counts.movedim(axis, -1).cumsum(dim=-1), (1, 0))
        counts = (sums[..., w:] - sums[..., :-w]).movedim(-1, axis)
    fullest = (counts == counts.max()).nonzero()
    far = (fullest - torch.tensor(start)).abs().sum(dim=1)  # a lesion larger than the window: in its middle
    return [int(i) for i in fullest[far.argmin()]]
