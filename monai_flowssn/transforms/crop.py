"""Windows on what the raters annotated."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Crop, InvertibleTransform, MapTransform, Pad, Randomizable


class CropOnRatersd(MapTransform, Randomizable, InvertibleTransform):
    """Crop a window on the annotations of a case; images that are smaller are padded by their edges.

    Without ``random`` the window's centre is that of the box around all annotated pixels, as in the crops of LIDC-IDRI; that of
    the image if nothing is annotated, there is no label, or ``label_key`` is ``None``. With it, a share of the windows has an
    annotated pixel drawn at random in its centre, and the others lie anywhere: what a network must see that is to look at whole
    images.

    Args:
        keys: items (C, *S) to crop alike.
        spatial_size: of the window; axes that it does not have, such as the third of a volume for a 2-D network, stay whole.
        label_key: the raters' masks (R, *S), above 0 where annotated; ``None`` looks at no masks.
        random: share of windows on annotated pixels, in [0, 1]; ``None`` for the centred window.

    Raises:
        ValueError: if ``random`` is not in [0, 1].
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        spatial_size: Sequence[int],
        label_key: str | None = "label",
        random: float | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        if random is not None and not 0 <= random <= 1:
            raise ValueError(
                f"random is {random}; it is the share of windows on annotated pixels: pass 0 to 1, or None."
            )
        self.spatial_size, self.label_key, self.random = tuple(spatial_size), label_key, random
        self.pad, self.crop = Pad(mode="edge"), Crop()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with all keys cropped to (C, *spatial_size)."""
        item = dict(data)
        size = next(tuple(item[key].shape[1:]) for key in self.key_iterator(item))
        window = self.spatial_size + size[len(self.spatial_size) :]
        missing = [max(w - s, 0) for w, s in zip(window, size)]
        for key in self.key_iterator(item):
            width = [(0, 0), *((m // 2, m - m // 2) for m in missing)]
            item[key] = self.pad(item[key], to_pad=width)  # type: ignore[arg-type]  # MONAI's hint is that of one axis
        label = item.get(self.label_key)
        marked = torch.zeros(0, len(size)) if label is None else torch.as_tensor(label > 0).any(dim=0).nonzero()
        start = self._start(marked, window, [s + m for s, m in zip(size, missing)])
        slices = Crop.compute_slices(roi_start=start, roi_end=[s + w for s, w in zip(start, window)])
        for key in self.key_iterator(item):
            item[key] = self.crop(item[key], slices)
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the windows back where they came from, with zeros around them."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.pad.inverse(self.crop.inverse(item[key]))
        return item

    def _start(self, marked: torch.Tensor, window: Sequence[int], size: Sequence[int]) -> list[int]:
        """Return the first corner, inside the image, for annotated pixels (P, D)."""
        last = [s - w for s, w in zip(size, window)]
        if self.random is None:
            box = (marked.amin(dim=0) + marked.amax(dim=0) + 1).tolist() if len(marked) else list(size)
            centre = [edges // 2 for edges in box]
        elif len(marked) and self.R.random() < self.random:
            centre = marked[self.R.randint(len(marked))].tolist()
        else:
            return [int(self.R.randint(most + 1)) for most in last]
        return [min(max(c - w // 2, 0), most) for c, w, most in zip(centre, window, last)]
