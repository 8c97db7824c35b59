"""The machine's memory, disk, state folder and clock: every finding provoked, and all left as it was."""

import os
import sys
import time
from pathlib import Path

import pytest

from mekt.errors import StateError
from mekt.machine import available_bytes, check_clock, check_memory, check_state, synchronised
from tests.mekt.conftest import locked, named


def test_memory_is_what_the_kernel_and_the_container_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 900000 kB\nMemAvailable:  400000 kB\n")
    assert available_bytes(meminfo, tmp_path) == 409_600_000
    (tmp_path / "memory.max").write_text("200000000\n")
    (tmp_path / "memory.current").write_text("50000000\n")
    assert available_bytes(meminfo, tmp_path) == 150_000_000
    assert available_bytes(tmp_path / "none", tmp_path / "none") > 0
    assert check_memory("wearable").mark == "ok"
    monkeypatch.setattr("mekt.machine.MEMORY_BYTES", {"edge": 2**60})
    assert check_memory("edge").mark == "warning"


def test_a_state_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "progress").write_bytes(b"kept")
    for folder in (tmp_path / "state", tmp_path / "not" / "yet"):
        assert {check.mark for check in check_state(folder)} == {"ok"}
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["state", "state/progress"]


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    impossible = [tmp_path / "file", tmp_path / "file" / "below"]
    if sys.platform.startswith("linux"):
        impossible.append(Path("/proc/mekt"))  # not even root makes one there
    for folder in impossible:
        check = named(check_state(folder), "state folder")
        assert check.mark == "FAILED" and check.family is StateError and str(folder) in check.seen


def test_folders_and_files_without_permission_are_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch(mode=0o400)
    if os.access(tmp_path / "ledger.sqlite", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "ledger.sqlite" in named(check_state(tmp_path), "state folder").seen
    tmp_path.chmod(0o500)
    assert named(check_state(tmp_path), "state folder").mark == "FAILED"
    tmp_path.chmod(0o700)


def test_a_disk_without_room_fails_and_one_with_little_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.machine.ROOM_BYTES", 2**62)
    assert named(check_state(tmp_path / "state"), "disk").mark == "warning"
    monkeypatch.setattr("mekt.machine.LEAST_ROOM_BYTES", 2**62)
    assert named(check_state(tmp_path / "state"), "disk").family is StateError


def test_a_state_folder_in_use_names_its_owner_and_is_free_again_afterwards(tmp_path: Path) -> None:
    with locked(tmp_path / "state"):
        check = named(check_state(tmp_path / "state"), "lock")
        assert check.family is StateError and "process 4711" in check.seen
    assert named(check_state(tmp_path / "state"), "lock").mark == "ok"
    with locked(tmp_path / "state"):
        pass
    (tmp_path / "state" / "lock").unlink()
    (tmp_path / "state" / "lock").mkdir()
    assert named(check_state(tmp_path / "state"), "lock").family is StateError


def test_a_clock_behind_the_files_of_the_state_is_seen(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ab").touch()
    now_s = time.time()
    assert named(check_clock(tmp_path), "clock").mark == "ok"
    os.utime(tmp_path / "blobs" / "ab", (now_s + 3600, now_s + 3600))
    check = named(check_clock(tmp_path), "clock")
    assert check.mark == "warning" and "the state folder" in check.seen and "battery" in check.remedy
    # A board without a clock battery starts in the past.
    assert "Mekt's own files" in named(check_clock(None, 946_684_800.0), "clock").seen


def test_the_kernels_word_on_its_clock() -> None:
    assert synchronised(0x2001, 1500).mark == "ok"
    assert synchronised(0x40, 16_000_000).mark == "warning"
    assert named(check_clock(None), "clock sync").mark in ("ok", "warning", "skipped")
