"""HDF5 files and pickles of LIDC-IDRI: types, ranges, links, damage."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz.judge import Input
from fuzz.pictures import Rng

from monai_flowssn.data import lidc
from monai_flowssn.transforms import CheckCased

SPLITS = ("train", "val", "test")


def arrays(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Images of 0..255 and labels of two raters, of six slices: (n, y, x), (n, y, x, R)."""
    images = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = 0, 255
    return images, rng.integers(0, 2, (6, 5, 4, 2), dtype=np.uint8)


def write(path: Path, images: np.ndarray, labels: np.ndarray, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        for shift, split in enumerate(SPLITS):
            content = {"images": images, "labels": labels, "uids": np.arange(6) + 10 * shift, **more}
            for name, values in content.items():
                file[f"{split}/{name}"] = values
    return path


def load(path: Path, split: str = "train") -> list[Any]:
    return [CheckCased(num_classes=2)(item) for item in lidc(path, split)]


def holds(images: np.ndarray, labels: np.ndarray) -> Any:
    def right(items: list[Any]) -> bool:
        found = np.stack([item["image"].as_tensor().numpy()[0].T for item in items])
        masks = np.stack([item["label"].as_tensor().numpy().T for item in items])
        return bool(np.allclose(found, images, atol=0.01) and np.array_equal(masks, labels))

    return right


def plain(rng: Rng, folder: Path) -> Input:
    images, labels = arrays(rng)
    dtype = rng.choice([np.uint8, np.int16, np.uint16, np.int64, bool])
    path = write(folder / "x.hdf5", images, labels.astype(dtype))
    return Input(lambda: load(path), holds(images, labels))


def floats(rng: Rng, folder: Path) -> Input:
    """In [0, 1] or [-0.5, 0.5], the first slices dark, which decides nothing."""
    images, labels = arrays(rng)
    shown = images / 255.0
    shown[: rng.integers(0, 6)] *= 0.45
    dtype = rng.choice([np.float32, np.float64])
    path = write(folder / "x.hdf5", (shown + rng.choice([0.0, -0.5])).astype(dtype), labels)
    limit = rng.choice([1, 6])
    return Input(lambda: lidc(path, "val", limit=int(limit)), holds(255 * shown[:limit], labels[:limit]))


def narrowed(rng: Rng, folder: Path) -> Input:
    images, labels = arrays(rng)
    dtype, value = [(np.uint16, 256), (np.uint16, 257), (np.int64, 2**16), (np.int64, 2**32 + 1), (np.int32, -(2**16))][
        rng.integers(5)
    ]
    labels = labels.astype(dtype)
    labels[rng.integers(6), 0, 0, 0] = value
    path = write(folder / "x.hdf5", images, labels)
    return Input(lambda: load(path), None, ("x.hdf5",))


def elsewhere(rng: Rng, folder: Path) -> Input:
    images, labels = arrays(rng)
    write(folder / "other.hdf5", images, labels)
    name, array = [("images", images), ("labels", labels)][rng.integers(2)]
    with h5py.File(write(folder / "x.hdf5", images, labels), "r+") as file:
        del file["train"][name]
        kind = rng.integers(3)
        if kind == 0:
            file["train"][name] = h5py.ExternalLink("other.hdf5", f"/val/{name}")
        elif kind == 1:
            array.tofile(folder / "raw")
            file["train"].create_dataset(
                name, array.shape, array.dtype, external=[(str(folder / "raw"), 0, array.nbytes)]
            )
        else:
            layout = h5py.VirtualLayout(array.shape, array.dtype)
            layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), f"train/{name}", array.shape)
            file["train"].create_virtual_dataset(name, layout)
    return Input(lambda: load(folder / "x.hdf5"), None, ("x.hdf5", name))


def out_of_range(rng: Rng, folder: Path) -> Input:
    images, labels = arrays(rng)
    shown = images / 255.0
    shown[rng.integers(6), 1, 1] = rng.choice([np.nan, np.inf, 2.0, -3.0, 1e6])
    path = write(folder / "x.hdf5", shown, labels)
    return Input(lambda: load(path), None, ("x.hdf5",))


def misshapen(rng: Rng, folder: Path) -> Input:
    images, labels = arrays(rng)
    change = [
        {"images": images[:5]}, {"labels": labels[..., 0]}, {"labels": labels[:, :-1]}, {"uids": np.arange(5)},
        {"labels": labels / 2}, {"images": images.astype(np.int16)}, {"spacing": np.zeros(6)}, {"spacing": np.full(6, np.nan)},
    ][rng.integers(8)]  # fmt: skip
    path = write(folder / "x.hdf5", **{"images": images, "labels": labels, **change})
    return Input(lambda: load(path), None)


def damaged(rng: Rng, folder: Path) -> Input:
    path = write(folder / "x.hdf5", *arrays(rng))
    path.write_bytes(path.read_bytes()[: int(rng.uniform(0, 0.9) * path.stat().st_size)])
    return Input(lambda: load(path), None, ("x.hdf5",))


def leaking(rng: Rng, folder: Path) -> Input:
    images, labels = arrays(rng)
    path = write(folder / "x.hdf5", images, labels, uids=np.arange(6))
    return Input(lambda: load(path), holds(images, labels), ("x.hdf5", "more than one split"), told=True)


def pickled(rng: Rng, folder: Path) -> Input:
    """Masks of zeros and ones, or of something else, which no threshold may hide."""
    images, labels = arrays(rng)
    value = rng.choice([1, 255, 2, 0.4, -1])
    masks = (labels * value).astype(float if value == 0.4 else int)
    data = {
        f"s{i}": {"image": images[i] / 255, "masks": [*masks[i].transpose(2, 0, 1)], "series_uid": f"1.{i}"}
        for i in range(6)
    }
    (folder / "x.pickle").write_bytes(pickle.dumps(data))

    def right(items: list[Any]) -> bool:
        names = [int(item["case"][1:]) for item in items]
        return holds(images[names], labels[names])(items)

    return Input(lambda: load(folder / "x.pickle"), right if value in (1, 255) else None, ("x.pickle",))


KINDS = {
    f"hdf5: {make.__name__}": make
    for make in (plain, floats, narrowed, elsewhere, out_of_range, misshapen, damaged, leaking, pickled)
}
