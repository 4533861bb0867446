"""Pictures: depth, palette, orientation, channels, damage; by a case of one's own and by the data sets' loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fuzz.judge import Input, read
from PIL import Image

from monai_flowssn.data import kvasir, lidc

Rng = np.random.Generator


def arrays(rng: Rng, *, large: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A grey image and a mask of zeros and ones, (y, x)."""
    size = rng.integers(17, 40, 2) if large else rng.integers(5, 20, 2)
    mask = np.zeros(size, np.uint8)
    top, left = rng.integers(0, size // 2)
    mask[top : top + rng.integers(2, size[0]), left : left + rng.integers(2, size[1])] = 1
    return rng.integers(0, 256, size, dtype=np.uint8), mask


def save(array: np.ndarray | Image.Image, path: Path, **options: Any) -> str:
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)
    return str(path)


def case(image: str, *label: str) -> dict[str, Any]:
    return {"image": image, "label": list(label), "case": "c7", "patient": "p"}


def holds(image: np.ndarray, mask: np.ndarray, tolerance: float = 0.0) -> Any:
    """Whether a loaded case holds an image (y, x[, C]) and the class ids of one mask (y, x)."""

    def right(item: dict[str, Any]) -> bool:
        found = item["image"].as_tensor().numpy()
        wanted = np.atleast_3d(image).transpose(2, 1, 0)
        same = found.shape == wanted.shape and np.abs(found - wanted.astype(float)).max() <= tolerance
        return bool(same and np.array_equal(item["label"].as_tensor().numpy()[0], mask.T))

    return right


def plain(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    suffix = rng.choice(["png", "bmp", "tif", "pgm", "gif"])
    files = save(image, folder / f"i.{suffix}"), save(mask, folder / f"m.{suffix}")
    return Input(lambda: read(case(*files)), holds(image, mask))


def deep(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    image = image.astype(np.uint16) * np.uint16(rng.integers(2, 257))
    files = save(image, folder / f"i.{rng.choice(['png', 'tif'])}"), save(mask, folder / "m.png")
    return Input(lambda: read(case(*files)), holds(image, mask))


def floats(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    image = rng.normal(0, 1000, image.shape).astype(np.float32)
    files = save(image, folder / "i.tif"), save(mask, folder / "m.png")
    return Input(lambda: read(case(*files)), holds(image, mask))


def bits(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    files = save(image, folder / "i.png"), save(Image.fromarray(mask * np.uint8(255)).convert("1"), folder / "m.png")
    return Input(lambda: read(case(*files)), holds(image, mask))


def colours(rng: Rng, folder: Path) -> Input:
    _, mask = arrays(rng)
    image = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    files = save(image, folder / f"i.{rng.choice(['png', 'bmp', 'tif', 'ppm'])}"), save(mask, folder / "m.png")
    return Input(lambda: read(case(*files)), holds(image, mask))


def _palette(indices: np.ndarray, colours: np.ndarray, path: Path) -> str:
    picture = Image.fromarray(indices)
    picture.putpalette(colours.astype(np.uint8).flatten().tolist())
    return save(picture, path)


def palette_image(rng: Rng, folder: Path) -> Input:
    _, mask = arrays(rng)
    indices = rng.integers(0, 6, mask.shape, dtype=np.uint8)
    table = rng.integers(0, 256, (6, 3))
    table[:, 0] = (table[:, 1] + 1) % 256
    files = _palette(indices, table, folder / "i.png"), save(mask, folder / "m.png")
    return Input(lambda: read(case(*files)), holds(table[indices], mask))


def palette_mask(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    table = np.array([[0, 0, 0], rng.integers(1, 256, 3) | [128, 0, 64]])
    table[1, 1] = 0
    files = save(image, folder / "i.png"), _palette(mask, table, folder / f"m.{rng.choice(['png', 'gif'])}")
    return Input(lambda: read(case(*files)), holds(image, mask))


def white_first(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    files = save(image, folder / "i.png"), _palette(1 - mask, np.array([[255] * 3, [0] * 3]), folder / "m.png")
    return Input(lambda: read(case(*files), class_values=[0, 255]), holds(image, mask))


def turned(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng, large=True)
    smooth = np.add.outer(np.arange(image.shape[0]) * 3, np.arange(image.shape[1]) * 2).astype(np.uint8)
    orientation = int(rng.integers(1, 9))
    exif = Image.Exif()
    exif[274] = orientation
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # what the camera did to what was upright
    stored = Image.fromarray(smooth) if undo is None else Image.fromarray(smooth).transpose(Image.Transpose(undo))
    files = save(stored, folder / "i.jpg", exif=exif, quality=100), save(mask, folder / "m.png")
    return Input(lambda: read(case(*files)), holds(smooth, mask, tolerance=6))


def transparent(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    mask[0, 0] = 1 - mask[1, 1]
    drawn = np.stack([*[0 * mask] * rng.choice([1, 3]), 255 * mask], axis=-1)
    files = save(image, folder / "i.png"), save(drawn, folder / "m.png")
    return Input(lambda: read(case(*files), class_values=[0, 255]), None, ("c7", "m.png"))


def opaque(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    drawn = np.stack([*[mask] * rng.choice([1, 3]), np.full_like(mask, 255)], axis=-1)
    files = save(image, folder / "i.png"), save(drawn, folder / "m.png")
    return Input(lambda: read(case(*files)), holds(image, mask))


def coloured_mask(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    drawn = np.stack([mask * 255, 0 * mask, rng.permutation(mask.flatten()).reshape(mask.shape)], axis=-1)
    files = save(image, folder / "i.png"), save(drawn, folder / "m.png")
    return Input(lambda: read(case(*files), class_values=[0, 255]), None, ("c7", "m.png"))


def lossy_mask(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng, large=True)
    mask[5:9, 5:9] = np.eye(4)
    files = (
        save(image, folder / "i.png"),
        save(mask * np.uint8(255), folder / "m.jpg", quality=int(rng.integers(20, 60))),
    )
    return Input(lambda: read(case(*files), class_values=[0, 255]), None, ("c7",))


def several(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    pages = {"save_all": True, "append_images": [Image.fromarray(255 - image)] * int(rng.integers(1, 4))}
    files = save(image, folder / f"i.{rng.choice(['tif', 'gif'])}", **pages), save(mask, folder / "m.png")
    return Input(lambda: read(case(*files)), None, ("c7", Path(files[0]).name))


def damaged(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng, large=True)
    path = folder / f"i.{rng.choice(['png', 'tif', 'bmp', 'jpg'])}"
    files = save(image, path), save(mask, folder / "m.png")
    path.write_bytes(path.read_bytes()[: int(rng.uniform(0, 0.6) * path.stat().st_size)])
    return Input(lambda: read(case(*files)), None, ("c7", path.name))


def another_size(rng: Rng, folder: Path) -> Input:
    image, mask = arrays(rng)
    files = save(image, folder / "i.png"), save(mask[:-1] if rng.random() < 0.5 else np.pad(mask, 1), folder / "m.png")
    return Input(lambda: read(case(*files)), None, ("c7", "m.png"))


def lidc_tree(rng: Rng, folder: Path) -> Input:
    """Of 8 or 16 bits; the loader promises 0..255."""
    image, mask = arrays(rng)
    depth = rng.choice([np.uint8, np.uint16])
    (folder / "test/images/p1").mkdir(parents=True)
    (folder / "test/gt/p1").mkdir(parents=True)
    save(image.astype(depth) * (depth(257) if depth is np.uint16 else depth(1)), folder / "test/images/p1/s.png")
    save(mask * np.uint8(255), folder / "test/gt/p1/s_l0.png")
    for split in ("train", "val"):
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "gt").mkdir()
    return Input(lambda: lidc(folder, "test")[0], holds(image, mask, tolerance=0.01))


def kvasir_depth(rng: Rng, folder: Path) -> Input:
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 1
    image = np.repeat(np.repeat(rng.integers(0, 65536, (1, 16), dtype=np.uint16), 16, axis=0)[..., None], 1, axis=-1)[
        ..., 0
    ]
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(10):
        save(image, folder / f"images/{number}.png")
        save(mask * np.uint8(255), folder / f"masks/{number}.png")
    return Input(lambda: kvasir(folder, "test", size=16)[0], holds(image / 257, mask, tolerance=0.51))


KINDS = {
    f"picture: {make.__name__}": make
    for make in (
        plain, deep, floats, bits, colours, palette_image, palette_mask, white_first, turned, transparent, opaque, coloured_mask,
        lossy_mask, several, damaged, another_size, lidc_tree, kvasir_depth,
    )
}  # fmt: skip
