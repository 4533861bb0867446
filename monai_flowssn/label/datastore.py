"""Studies in a folder that requests cannot leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import itk
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.utils.others.generic import remove_file

from monai_flowssn.label.requests import refuse_config, refuse_path

__all__ = ["FolderOfStudies"]


class FolderOfStudies(LocalDatastore):
    """MONAI Label's folder of images and labels, for plain names and image files only.

    The original joins the name and suffix of an upload to its folder, whatever they are: ``../app/model/.../train`` with a
    ``.yaml`` file would be a bundle's config.
    """

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Save an uploaded image."""
        with _removed_if_refused(image_filename):
            self._check(image_id, image_filename)
            return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save an uploaded label, or an answer, under a tag."""
        with _removed_if_refused(label_filename):
            self._check((image_id, label_tag), label_filename)
            image = self.get_image_uri(image_id)
            if not image:
                raise HTTPException(400, f"{image_id!r} is no study of this server.")
            self._compare(label_filename, image)
            return super().save_label(image_id, label_filename, label_tag, label_info)

    def _compare(self, label: str, image: str) -> None:
        """Refuse a label of another size, which would be kept now and end every training later."""
        sizes = size_of(label), size_of(image)
        if sizes[0] is None:
            raise HTTPException(400, "the label does not open as an image; send a NIfTI, NRRD or PNG file.")
        if sizes[1] is not None and sizes[0] != sizes[1]:
            got, rule = ("x".join(map(str, size)) for size in sizes if size)
            raise HTTPException(400, f"the label is {got}, and its image {rule}; draw it on the image.")

    def _check(self, names: Any, filename: str) -> None:
        suffixes = tuple(pattern.removeprefix("*") for pattern in (*self._extensions, "*.seg.nrrd"))
        try:
            refuse_path(names)
            refuse_config(names)
            if not filename.endswith(suffixes):
                raise ValueError(f"the file is none of {', '.join(suffixes)}; others are not taken.")
        except ValueError as error:
            raise HTTPException(400, str(error)) from error


@contextmanager
def _removed_if_refused(upload: str) -> Iterator[None]:
    """Remove a file that was sent, which MONAI Label does only after an answer without error."""
    try:
        yield
    except HTTPException:
        remove_file(upload)
        raise


def size_of(path: str) -> tuple[int, ...] | None:
    """Return the voxels of an image along its axes, without those of one voxel, by its header; None if no reader knows it.

    A single slice of a volume's file and a picture are the same to clients.
    """
    if Path(path).is_dir():
        return None
    reader = itk.ImageIOFactory.CreateImageIO(path, itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        return None
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    sizes = (reader.GetDimensions(axis) for axis in range(reader.GetNumberOfDimensions()))
    return tuple(size for size in sizes if size > 1)
