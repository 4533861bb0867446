"""Where the files of a case go, and its JSON summary."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from monai_flowssn.data.geometry import element_size
from monai_flowssn.files import written_whole
from monai_flowssn.transforms.writer import CaseWriter

_EXTENSIONS = re.compile(r"\.(nii(\.gz)?|nrrd|mh[ad]|dcm|png|jpe?g|tiff?|bmp|gif|ppm|npy|npz)$", re.IGNORECASE)


def case_name(item: Mapping[str, Any], image: torch.Tensor) -> str:
    """The name of a case: `item["case"]`, or the file name of its image.

    Args:
        item: one case.
        image: its image; only its meta data are read.

    Example:
        >>> case_name({}, MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": "scans/p1.nii.gz"}))
        'p1'
    """
    source = getattr(image, "meta", {}).get("filename_or_obj", "case")
    return str(item.get("case") or _EXTENSIONS.sub("", Path(str(source)).name))


def case_file(output_dir: str | Path, case: str, suffix: str) -> Path:
    """`<output_dir>/<case>/<case>_<suffix>`; the path stays inside `output_dir` whatever the case name holds.

    Characters other than letters, digits, "_", "-" and "." become "_". A name that had to be changed gets a hash of
    the original, so that two cases never share a file.

    Args:
        output_dir: folder of all outputs.
        case: name of the case.
        suffix: end of the file name, with its extension.

    Example:
        >>> case_file("out", "p1", "panel.png").as_posix()
        'out/p1/p1_panel.png'
        >>> case_file("out", "../p1", "panel.png").as_posix()
        'out/_p1-e0bcf4e7/_p1-e0bcf4e7_panel.png'
    """
    name = (
        re.sub(r"[^\w.-]+", "_", case).strip(".")[:48] or "case"
    )  # 48 characters of 4 bytes leave room for the suffix
    if name != case:
        name = f"{name}-{hashlib.sha256(case.encode(errors='replace')).hexdigest()[:8]}"
    return Path(output_dir) / name / f"{name}_{suffix}"


def pixel_size(image: MetaTensor) -> tuple[float, str]:
    """Size of one pixel and its unit.

    Args:
        image: (C, *S); an identity affine means that the spacing is unknown.

    Returns:
        mm^2 in 2-D and mm^3 in 3-D; (1, "pixels") or (1, "voxels") where the spacing is unknown.
    """
    dimensions, affine = image.ndim - 1, image.affine.numpy(force=True)
    if np.allclose(affine, np.eye(len(affine)), atol=1e-6):
        return 1.0, "pixels" if dimensions == 2 else "voxels"
    return element_size(affine, dimensions), f"mm^{dimensions}"


def summarise_sizes(sizes: Sequence[float]) -> dict[str, Any]:
    """Mean, median and central 95 % interval (empirical quantiles, linear interpolation) over the draws.

    Args:
        sizes: one size per draw.

    Example:
        >>> summarise_sizes([0.0, 1.0, 2.0])
        {'per_draw': [0.0, 1.0, 2.0], 'mean': 1.0, 'median': 1.0, 'interval_95': [0.05, 1.95]}
    """
    low, high = np.quantile(sizes, [0.025, 0.975])
    return {
        "per_draw": list(sizes),
        "mean": float(np.mean(sizes)),
        "median": float(np.median(sizes)),
        "interval_95": [round(float(low), 6), round(float(high), 6)],
    }


class SaveSummaryd(CaseWriter):
    """Writes `<case>_summary.json`: the size of every class in every draw, and the mean uncertainty.

    Reads what :class:`DrawsToMapsd` adds to a case. Sizes are in the geometry of the maps, so it belongs after
    `Invertd`: then they are those of the input.

    Args:
        output_dir: folder of all outputs; each case gets its own folder in it.
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Write the summary of one case.

        Args:
            data: a case with draws (N, *S), mean (K - 1, *S), segmentation, entropy, expected_entropy and
                mutual_information (1, *S).

        Returns:
            The case, with its ``summary``.
        """
        case = case_name(data, data["segmentation"])
        summary = summarise(data, case)
        with written_whole(case_file(self.output_dir, case, "summary.json")) as path:
            path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return {**data, "summary": summary}


def summarise(data: Mapping[str, Any], case: str) -> dict[str, Any]:
    """The content of the summary of one case; see :class:`SaveSummaryd`.

    Args:
        data: a case with the maps of :class:`DrawsToMapsd`.
        case: its name.
    """
    draws, mean, segmentation = data["draws"], data["mean"], data["segmentation"]
    size, unit = pixel_size(segmentation)
    num_classes = len(mean) + 1
    sizes, region = [], torch.zeros(segmentation.shape[1:], dtype=torch.bool)
    for draw in draws:  # one at a time, and each once: they may be larger than memory
        sizes.append(_count_classes(draw, num_classes) * size)
        region |= torch.as_tensor(draw != 0).cpu()
    counts = np.stack(sizes)  # (N, K)
    final = _count_classes(segmentation, num_classes) * size
    return {
        "case": case,
        "num_draws": len(draws),
        "num_classes": num_classes,
        "shape": list(segmentation.shape[1:]),
        **({"window": data["window"]} if "window" in data else {}),
        "spacing": None if unit in ("pixels", "voxels") else _spacing(segmentation),
        "unit": unit,
        "classes": {
            str(k): {**summarise_sizes(counts[:, k].tolist()), "segmentation": float(final[k])}
            for k in range(1, num_classes)
        },
        "uncertainty": {
            "region_size": float(region.sum()) * size,
            **{key: _mean_over(data[key], region) for key in ("entropy", "expected_entropy", "mutual_information")},
        },
        "conventions": _conventions(segmentation.ndim - 1, unit, num_classes),
    }


def _spacing(image: MetaTensor) -> list[float]:
    """Distances in mm along the axes that the image (C, *S) has; a slice has no third."""
    axes: list[float] = np.linalg.norm(image.affine.numpy(force=True)[:-1, : image.ndim - 1], axis=0).tolist()
    return axes


def _count_classes(labels: torch.Tensor, num_classes: int) -> np.ndarray:
    flat = torch.as_tensor(labels).flatten().long()
    return torch.bincount(flat, minlength=num_classes)[:num_classes].cpu().numpy().astype(np.float64)


def _mean_over(values: torch.Tensor, region: torch.Tensor) -> float | None:
    return float(torch.as_tensor(values)[0][region].mean()) if region.any() else None


def _conventions(dimensions: int, unit: str, num_classes: int) -> dict[str, str]:
    element, size = ("pixel", "area") if dimensions == 2 else ("voxel", "volume")
    known = "counted, because the spacing is unknown" if unit == f"{element}s" else f"in {unit}"
    return {
        "size": f"{size} of a class: its {element}s, {known}; {element}s outside what the network saw are background",
        "per_draw": f"{size} in every draw, in the order of the saved draws",
        "interval_95": "2.5 % and 97.5 % empirical quantiles over the draws, linear interpolation",
        "segmentation": "arg max over the classes of the mean probability of the draws",
        "uncertainty": f"means over the region where at least one draw is foreground, in nats, between 0 and log "
        f"{num_classes} = {np.log(num_classes):.4f}; null if that region is empty",
        "entropy": "predictive entropy H[mean_n p_n] = expected_entropy + mutual_information",
        "expected_entropy": "mean over the draws of their own entropy, mean_n H[p_n]",
        "mutual_information": "inter-draw disagreement, H[mean_n p_n] - mean_n H[p_n]",
    }
