"""Studies in a folder that requests cannot leave."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore

from monai_flowssn.label.requests import refuse_config, refuse_path

__all__ = ["FolderOfStudies"]


class FolderOfStudies(LocalDatastore):
    """MONAI Label's folder of images and labels, for plain names and image files only.

    The original joins the name and suffix of an upload to its folder, whatever they are: ``../app/model/.../train`` with a
    ``.yaml`` file would be a bundle's config.
    """

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Save an uploaded image."""
        self._check(image_id, image_filename)
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save an uploaded label, or an answer, under a tag."""
        self._check((image_id, label_tag), label_filename)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def _check(self, names: Any, filename: str) -> None:
        suffixes = tuple(pattern.removeprefix("*") for pattern in (*self._extensions, "*.seg.nrrd"))
        try:
            refuse_path(names)
            refuse_config(names)
            if not filename.endswith(suffixes):
                raise ValueError(f"the file is none of {', '.join(suffixes)}; others are not taken.")
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
