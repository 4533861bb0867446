import json
import os

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_flowssn.data.manifest import describe, fingerprint, write_manifest


def items(count=4):
    draw = np.random.default_rng(0)
    return [
        {
            "image": MetaTensor(torch.from_numpy(draw.random((1, 8, 8), np.float32))),
            "label": MetaTensor(torch.from_numpy(draw.integers(0, 2, (3, 8, 8), np.int16))),
            "patient": str(i // 2),
            "case": f"case-{i}",
        }
        for i in range(count)
    ]


def files(folder):
    folder.mkdir()
    listed = []
    for item in items():
        stem = folder / item["case"]
        (folder / item["case"]).with_suffix(".bin").write_bytes(item["image"].numpy().tobytes())
        raters = [stem.with_name(f"{stem.name}_{r}.bin") for r in range(2)]
        for r, path in enumerate(raters):
            path.write_bytes(item["label"][r].numpy().tobytes())
        listed.append({**item, "image": stem.with_suffix(".bin"), "label": [str(path) for path in raters]})
    return listed


def both(listed):
    return fingerprint(listed), describe(listed)["sha256"]


def test_same_content_same_hashes_in_any_order_and_container():
    assert both(items()) == both(items()[::-1])
    arrays = [{**item, "image": item["image"].numpy(), "label": item["label"].numpy()} for item in items()]
    assert both(items()) == both(arrays)
    assert len(fingerprint(items())) == 16


@pytest.mark.parametrize("key", ["image", "label"])
def test_one_changed_pixel_changes_both_hashes(key):
    changed = items()
    changed[2][key][0, 3, 3] += 1
    for before, after in zip(both(items()), both(changed)):
        assert before != after


@pytest.mark.parametrize("key", ["patient", "case"])
def test_another_name_or_fewer_cases_change_both_hashes(key):
    renamed = items()
    renamed[0][key] = "other"
    for other in (renamed, items()[1:], []):
        for before, after in zip(both(items()), both(other)):
            assert before != after


def test_shape_and_order_of_raters_are_content():
    swapped, flat = items(), items()
    swapped[0]["label"] = swapped[0]["label"][[1, 0, 2]]
    flat[0]["image"] = flat[0]["image"].reshape(1, 4, 16)
    assert len({fingerprint(listed) for listed in (items(), swapped, flat)}) == 3


def test_files_count_by_content_and_not_by_folder(tmp_path):
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert both(first) == both(second)
    (tmp_path / "b" / "case-1_0.bin").write_bytes(b"x" * 128)
    assert fingerprint(first) != fingerprint(second)
    assert describe(first)["sha256"] != describe(second)["sha256"]


def test_large_files_by_their_ends_quickly_and_whole_in_the_manifest(tmp_path):
    path, content = tmp_path / "large.bin", bytearray(1 << 20)
    path.write_bytes(content)
    listed = [{"image": path, "case": "a", "patient": "a"}]
    quick, whole = both(listed)
    content[-1] = 1
    path.write_bytes(content)
    assert fingerprint(listed) != quick
    content[-1], content[100_000] = 0, 1
    path.write_bytes(content)
    assert describe(listed)["sha256"] != whole


def test_folders_such_as_dicom_series_are_content(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"one")
    listed = [{"image": str(series), "case": "a", "patient": "a"}]
    before = fingerprint(listed)
    (series / "2.dcm").write_bytes(b"two")
    assert fingerprint(listed) != before


def test_counts_of_cases_patients_empty_and_missing_masks():
    listed = items()
    listed[0]["label"][1] = 0
    listed[3]["label"][0] = -1
    listed[3]["label"][2] = 0
    counts = describe(listed)
    names = ("cases", "patients", "raters", "masks", "masks_empty", "masks_missing")
    assert [counts[name] for name in names] == [4, 2, 3, 12, 2, 1]


def test_files_are_counted_but_not_decoded(tmp_path):
    counts = describe(files(tmp_path / "a"))
    assert (counts["cases"], counts["raters"], counts["masks"]) == (4, 2, 8)
    assert "masks_empty" not in counts


def test_manifest_is_written_whole(tmp_path):
    path = tmp_path / "manifest.json"
    write_manifest(path, about="The CT is simulated.", train=items(), val=[])
    content = json.loads(path.read_text())
    assert content["about"] == "The CT is simulated."
    assert content["groups"]["train"] == describe(items())
    assert content["groups"]["val"]["cases"] == 0
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_folder_that_cannot_be_written_to_costs_a_warning(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="was not written"):
        write_manifest(tmp_path / "file" / "manifest.json", train=items())


def test_failed_replacement_leaves_no_piece_behind(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.warns(UserWarning, match="was not written"):
        write_manifest(tmp_path / "manifest.json", train=items())
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_cases_without_masks_are_named_before_anything_begins(tmp_path):
    bare = [
        {**item, "label": []} if i else {k: v for k, v in item.items() if k != "label"}
        for i, item in enumerate(items())
    ]
    with pytest.raises(ValueError, match="cases of test have no masks"):
        write_manifest(tmp_path / "manifest.json", train=items(), test=bare)
