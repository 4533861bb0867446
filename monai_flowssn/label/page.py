"""A page for browsers, and the files that it shows: every image and mask as NRRD, whatever it is stored as."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException
from fastapi.background import BackgroundTasks
from fastapi.responses import FileResponse
from monai.data import ITKWriter, MetaTensor
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from monai_flowssn.data.reading import load_case

__all__ = ["router"]

PAGE = Path(__file__).with_suffix(".html")
# nothing from elsewhere: neither the name of a study nor an answer brings in a script or sends anything away
POLICY = "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'unsafe-inline'; img-src data: blob:"

router = APIRouter(prefix="/draws", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])


@router.get("/", include_in_schema=False)
def page() -> FileResponse:
    """Return the page."""
    return FileResponse(PAGE, headers={"Content-Security-Policy": POLICY})


@router.get("/page.js", include_in_schema=False)
def script() -> FileResponse:
    """Return what it does."""
    return FileResponse(PAGE.with_suffix(".js"))


@router.get("/studies", include_in_schema=False)
def studies() -> dict[str, list[str]]:
    """Return the names of all studies, those of a DICOMweb store too, and the tags of their labels."""
    datastore = app_instance().datastore()
    return {image: sorted(datastore.get_labels_by_image_id(image)) for image in sorted(datastore.list_images())}


@router.get("/file", include_in_schema=False)
def file(background_tasks: BackgroundTasks, image: str, tag: str = "") -> FileResponse:
    """Return a study's image as the models read it, or a rater's mask of it, as float32 NRRD.

    Args:
        background_tasks: what is done after the answer.
        image: name of the study.
        tag: of the rater's label; empty for the image.
    """
    try:
        values = _read(app_instance().datastore(), image, tag)
    except (ValueError, RuntimeError, OSError) as error:
        raise HTTPException(400, str(error)) from error
    writer = ITKWriter()
    writer.set_data_array(values)
    writer.set_metadata(values.meta)
    with tempfile.NamedTemporaryFile(suffix=".nrrd", delete=False) as written:
        background_tasks.add_task(remove_file, written.name)
    writer.write(written.name)
    return FileResponse(written.name)


def _read(datastore: Datastore, image: str, tag: str) -> MetaTensor:
    """Return (C, *S), or (1, *S) of a rater."""
    if image not in datastore.list_images():
        raise ValueError(f"{image!r} is no study of this server.")
    case = {"case": image, "image": datastore.get_image_uri(image)}
    if not tag:
        return load_case(case)["image"]
    label = datastore.get_labels_by_image_id(image).get(tag)
    if label is None:
        raise ValueError(f"{image!r} has no label {tag!r}.")
    return load_case({**case, "label": [datastore.get_label_uri(label, tag)]})["label"]
