"""What a data list contains: a quick fingerprint for every run, and a manifest to lie beside the data."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_flowssn.annotations import annotated_raters
from monai_flowssn.files import written_whole

__all__ = ["describe", "fingerprint", "write_manifest"]

PIECE = 1 << 16  # bytes read at the start, the middle and the end of a large file


def fingerprint(items: Sequence[Mapping[str, Any]]) -> str:
    """Short hash of what a data list contains: cases, patients, and images and masks by their bytes.

    Neither the order of the list nor the folder of the files matters. It is meant for telling two data lists apart,
    not for security: arrays go through CRC-32, and of files above 192 KiB only the size, start, middle and end
    are read (compressed formats carry a checksum at the end). The manifest holds a hash of every byte.

    Args:
        items: dictionaries with ``image`` and ``label`` as arrays (C, *S), (R, *S), as paths, or as lists of paths.

    Returns:
        16 hexadecimal digits.

    >>> a = {"case": "a", "patient": "1", "image": np.zeros((1, 2, 2))}
    >>> b = {"case": "b", "patient": "1", "image": np.ones((1, 2, 2))}
    >>> fingerprint([a, b]) == fingerprint([b, a])
    True
    """
    return _digest(items, whole=False)[:16]


def describe(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count what a data list contains, name its patients, and hash every byte of it.

    Masks are counted as empty or as missing (-1 everywhere) for labels in memory only; files are not decoded.
    """
    labels = [item["label"] for item in items if "label" in item]
    patients = sorted({str(item["patient"]) for item in items if "patient" in item})
    counts: dict[str, Any] = {
        "cases": len(items),
        "patients": len(patients),
        "raters": max(map(_raters, labels), default=0),
        "masks": sum(map(_raters, labels)),
    }
    if labels and not any(isinstance(label, (str, Path, list, tuple)) for label in labels):
        arrays = [torch.from_numpy(_array(label)) for label in labels]
        counts["masks_empty"] = int(sum((mask == 0).flatten(1).all(1).sum() for mask in arrays))
        counts["masks_missing"] = int(sum((~annotated_raters(mask[None])).sum() for mask in arrays))
    return {**counts, "fingerprint": fingerprint(items), "sha256": _digest(items, whole=True), "patient_ids": patients}


def write_manifest(path: str | Path, *, about: str = "", **groups: Sequence[Mapping[str, Any]]) -> None:
    """Write counts, patients and hashes of each data list as a small JSON file, whole or not at all.

    It stands before every training and evaluation, so it is what finds a case without masks before they begin. A folder that
    cannot be written to costs a warning and nothing else.

    Args:
        path: JSON file to write.
        about: what everybody who finds the file must know, such as that images are simulated.
        groups: data lists by name, such as ``train=...``.

    Raises:
        ValueError: for a case without masks.
    """
    for name, items in groups.items():
        bare = [str(item.get("case", item["image"])) for item in items if not _raters(item.get("label", ()))]
        if bare:
            raise ValueError(
                f"{len(bare)} of {len(items)} cases of {name} have no masks ({', '.join(bare[:5])}); training and evaluation "
                "need them: leave these cases to inference."
            )
    path = Path(path)
    content = {"about": about, "groups": {name: describe(items) for name, items in groups.items()}}
    try:
        with written_whole(path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        warnings.warn(f"The manifest {path} was not written ({error}); the data is used without it.", stacklevel=2)


def _digest(items: Sequence[Mapping[str, Any]], *, whole: bool) -> str:
    total = sha256()
    for item in sorted(items, key=lambda item: str(item.get("case", ""))):
        for key in sorted(item):
            for text in _parts(key, item[key], whole):
                total.update(f"{key}={text};".encode())
    return total.hexdigest()


def _parts(key: str, value: Any, whole: bool) -> Iterator[str]:
    """Texts that stand for the content of one entry of an item."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = np.ascontiguousarray(_array(value))
        yield f"{array.dtype}{array.shape}" + (
            sha256(array.data).hexdigest() if whole else f"{zlib.crc32(array.data):08x}"
        )
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _parts(key, one, whole)
    elif isinstance(value, Path) or (isinstance(value, str) and key not in ("case", "patient")):
        path = Path(value)
        if path.is_dir():  # a DICOM series
            for file in sorted(file for file in path.rglob("*") if file.is_file()):
                yield _file(file, whole)
        else:
            yield _file(path, whole) if path.is_file() else str(value)
    else:
        yield str(value)


def _file(path: Path, whole: bool) -> str:
    size = path.stat().st_size
    total = sha256(str(size).encode())
    with path.open("rb") as file:
        if whole or size <= 3 * PIECE:
            for block in iter(lambda: file.read(PIECE), b""):
                total.update(block)
        else:
            for start in (0, (size - PIECE) // 2, size - PIECE):
                file.seek(start)
                total.update(file.read(PIECE))
    return total.hexdigest()


def _array(value: Any) -> np.ndarray:
    return (
        value.detach().cpu().as_subclass(torch.Tensor).numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    )


def _raters(label: Any) -> int:
    return 1 if isinstance(label, (str, Path)) else sum(rater is not None for rater in label)
