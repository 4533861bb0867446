"""Small data sets in the layouts of the real ones, and a workflow small enough for a test."""

from __future__ import annotations

import locale
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_scales import TRAINING

ROOT = Path(__file__).resolve().parent.parent
CTYPE = locale.setlocale(locale.LC_CTYPE)


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """ITK, with which tests write DICOM files, leaves the locale C."""
    yield
    locale.setlocale(locale.LC_CTYPE, CTYPE)


def write_lidc(path: Path, *, cases: int = 6, size: int = 16) -> Path:
    """Write discs of four raters, the third of whom often marks nothing, in the layout of PHiSeg's HDF5 file."""
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*2 * [np.arange(size)], indexing="ij"))
    with h5py.File(path, "w") as file:
        for first, split in enumerate(("train", "val", "test")):
            centres = generator.uniform(5, size - 5, (cases, 1, 2, 1, 1))
            radii = generator.uniform(2, 4, (cases, 4, 1, 1))
            radii[::2, 2] = 0
            masks = np.linalg.norm(grid - centres, axis=2) < radii  # (n, R, H, W)
            group = file.create_group(split)
            noise = generator.normal(60, 10, (cases, size, size))
            group["images"] = (noise + 100 * masks.mean(1)).clip(0, 255).astype(np.uint8)
            group["labels"] = masks.transpose(0, 2, 3, 1).astype(np.uint8)
            group["uids"] = 100 * first + np.arange(cases) // 2
            group["spacing"] = np.full(cases, 0.5)
    return path


@pytest.fixture(scope="session")
def tiny_lidc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lidc(tmp_path_factory.mktemp("lidc") / "tiny.hdf5")


@pytest.fixture
def tiny_options(tiny_lidc: Path, tmp_path: Path) -> dict:
    """Options of a tiny training; the networks' own are in `tiny.yaml`."""
    return {**TRAINING, "bundle_root": str(tmp_path), "dataset_dir": str(tiny_lidc)}


@pytest.fixture
def mapped_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Keeps all label maps in files, and says how many bytes of such files this process has mapped."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("looks into Linux's list of mapped files")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("monai_flowssn.files.KEPT_IN_MEMORY", 0)

    def count() -> int:
        ranges = [line.split()[0].split("-") for line in maps.read_text().splitlines() if str(tmp_path) in line]
        return sum(int(end, 16) - int(start, 16) for start, end in ranges)

    return count
