"""What transforms that write files of a case have in common."""

from __future__ import annotations

from pathlib import Path

from monai.transforms import SaveImaged, Transform

__all__ = ["CaseWriter"]


class CaseWriter(SaveImaged):
    """A transform that writes files of a case.

    It is a kind of MONAI's ``SaveImaged`` in name alone, because MONAI Label leaves those out of a bundle's postprocessing: the
    same list then serves inference, which writes, and a viewer, which is answered.

    Args:
        output_dir: folder of all outputs; each case gets its own folder in it.
    """

    def __init__(self, output_dir: str | Path) -> None:
        Transform.__init__(self)
        self.output_dir = output_dir
