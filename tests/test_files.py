import gc
import os
import platform
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import pytest
import torch

from monai_flowssn import files
from monai_flowssn.files import hold, label_maps, saver, written_whole


def fail_half_way(path) -> None:
    with written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        fail_half_way(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with written_whole(path) as temporary:
        assert not path.exists()
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into Linux's list of mapped files")
def test_large_label_maps_are_kept_in_a_file_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files, "KEPT_IN_MEMORY", 24)
    small, large = label_maps((2, 3, 3)), label_maps((2, 3, 4))
    large[1] = torch.arange(12).view(3, 4)
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []
    assert large.shape == (2, 3, 4)
    assert large[1, 2, 3] == 11
    assert small.dtype == large.dtype == torch.uint8
    del large
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_no_room_for_large_label_maps_is_said_before_anything_is_drawn(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files, "KEPT_IN_MEMORY", 0)
    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"\(2, 3, 4\) need 0.0 GiB in .*No space left on device.*set TMPDIR"):
        label_maps((2, 3, 4))


def part_of(process: int, machine: str = platform.node()) -> str:
    return f".part-{process}-{zlib.crc32(machine.encode()):08x}-model.pt"


def test_what_killed_writes_have_left_goes_at_the_next_start(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    gone = [part_of(dead.pid), part_of(1, "yesterday")]
    kept = [part_of(os.getppid()), part_of(dead.pid, "elsewhere"), ".part", "model.pt"]
    for name in (*gone, *kept):
        (tmp_path / name).touch()
    os.utime(tmp_path / gone[1], times=(time.time() - 90000,) * 2)
    saver(tmp_path)({"a": torch.ones(1)}, "last.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "last.ckpt"])
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"a": torch.ones(1)}


HOLDER = """
import sys
from pathlib import Path
from monai_flowssn.files import hold
hold(Path(sys.argv[1]))
print(flush=True)
input()
"""


def test_a_folder_is_one_process_s_and_free_when_it_is_killed(tmp_path):
    folder = tmp_path / "models"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other.stdout.readline()
        said = rf"models is in use by process {other.pid} on {platform.node()} since .*; wait until it has ended, or"
        with pytest.raises(ValueError, match=said):
            hold(folder)
        other.kill()
        other.wait()
    hold(folder)
    hold(folder / "." / "..." / "..")  # the same; of this process
    assert f"process {os.getpid()} " in (folder / ".lock").read_text()
