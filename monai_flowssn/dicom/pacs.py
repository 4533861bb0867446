"""A PACS by DICOMweb: find the series of a study (QIDO-RS), fetch it (WADO-RS), and store results beside it (STOW-RS)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydicom
from dicomweb_client import DICOMwebClient
from pydicom import uid

__all__ = ["fetch_series", "store_files"]

RESULTS = (uid.SegmentationStorage, uid.ParametricMapStorage)


def fetch_series(address: str, study: str, folder: str | Path, series: str | None = None) -> Path:
    """Write the slices of a study's series into a folder.

    Args:
        address: of the DICOMweb service, such as ``http://127.0.0.1:8042/dicom-web``.
        study: its StudyInstanceUID.
        folder: receives the files; made here, and empty before.
        series: SeriesInstanceUID, where the study has several series of images. Results such as ours do not count.

    Returns:
        The folder.

    Raises:
        ValueError: if the study has no such series, or a choice of several, which it lists; or the folder has files.
    """
    client, folder = DICOMwebClient(address), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder} has files; give a new folder, so that a series is not mixed with another.")
    found = {each["SeriesInstanceUID"]: each for each in _images(client, study)}
    chosen = series or (next(iter(found)) if len(found) == 1 else "")
    if chosen not in found:
        listed = "".join(
            f"\n  {name}  {each.get('Modality')}  {each.get('SeriesDescription')}" for name, each in found.items()
        )
        raise ValueError(
            f"study {study} at {address} has {len(found)} series of images; give the UID of one of them:{listed or ' none'}"
        )
    for image in client.iter_series(study, chosen):
        image.save_as(folder / f"{image.SOPInstanceUID}.dcm")
    return folder


def store_files(address: str, paths: Iterable[str | Path]) -> list[str]:
    """Store DICOM files.

    Args:
        address: of the DICOMweb service.
        paths: of the files.

    Returns:
        Their SOPInstanceUIDs.

    Raises:
        ValueError: if the PACS does not take one.
    """
    client, stored = DICOMwebClient(address), []
    for path in paths:  # one by one: they may be large together
        made = pydicom.dcmread(path)
        answer = client.store_instances([made])
        if answer.get("FailedSOPSequence"):
            reason = answer.FailedSOPSequence[0].get("FailureReason")
            raise ValueError(f"{address} did not take {path} (failure reason {reason}); its log says more.")
        stored.append(str(made.SOPInstanceUID))
    return stored


def _images(client: DICOMwebClient, study: str) -> list[dict[str, Any]]:
    """Return what QIDO says of the series of images of a study."""
    series = []
    for each in _plain(client.search_for_series(study)):
        first = _plain(client.search_for_instances(study, each["SeriesInstanceUID"], limit=1))
        if first and "Rows" in first[0] and first[0]["SOPClassUID"] not in RESULTS:
            series.append(each)
    return series


def _plain(answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = map(pydicom.Dataset.from_json, answer)
    return [{element.keyword: element.value for element in each} for each in found]
