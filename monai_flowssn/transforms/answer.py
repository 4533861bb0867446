"""What a viewer gets: one map of a case, and its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from monai_flowssn.transforms.summary import case_name, summarise

OUTPUTS = ("segmentation", "draw", "entropy", "mutual_information", "draws")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class AnswerViewerd(Transform):
    """Put the map that was asked for under ``pred`` and the summary under ``result``, where MONAI Label looks for them.

    ``segmentation`` and ``draw`` are label maps (uint8); ``entropy`` and ``mutual_information`` are in nats (float32), or, for an
    image that is a picture file, from [0, log K] to [0, 255] (uint8); ``draws`` are the label maps of all, as `.seg.nrrd`.
    The JSON answer has the size of every class in every draw and the mean uncertainty.

    Args:
        output: one of those, or a sequence that begins with it (MONAI Label's way of handing over a default).
        draw: which draw ``draw`` is, counted from 1.

    Raises:
        ValueError: for another output, or a draw that was not made.
    """

    def __init__(self, output: str | Sequence[str] = OUTPUTS, *, draw: int = 1) -> None:
        self.output = output if isinstance(output, str) else output[0]
        self.draw = int(draw)
        if self.output not in OUTPUTS:
            raise ValueError(f"output is {self.output!r}; choose one of {', '.join(OUTPUTS)}.")

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Answer for a case with the maps of :class:`DrawsToMapsd`, in the geometry of the file it came from."""
        item, count = dict(data), len(data["draws"])
        if self.output == "draw" and not 1 <= self.draw <= count:
            raise ValueError(f"draw is {self.draw}; {count} were made: choose from 1 to {count}.")
        several = self.output == "draws" and count > 1
        output = "draw" if self.output == "draws" and not several else self.output  # one segment is a label map
        chosen = self.draw - 1 if self.output == "draw" else 0
        summary = data.get("summary") or summarise(data, case_name(data, data["segmentation"]))
        item["result"] = {**summary, "output": output}
        values = data["draws"][chosen][None] if output == "draw" else data[output]
        if output in ("segmentation", "draw", "draws"):
            values = values.round().to(torch.uint8)
        elif str(data.get("image_path", "")).lower().endswith(_PICTURES):
            top = float(np.log(len(data["mean"]) + 1))
            values = (values / top * 255).round().clamp(0, 255).to(torch.uint8)
            item["result"]["scale"] = f"{output} = pixel value / 255 * {top:.6f} nats"
        if several:
            item["result_extension"] = ".seg.nrrd"
        # MONAI Label's writer makes a third axis of the channel of a 2-D map
        item["pred"] = values[0] if values.ndim == 3 and len(values) == 1 else values
        return item
