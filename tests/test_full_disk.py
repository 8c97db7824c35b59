"""A disk that is full or read-only: a clear error ends who runs into it; mended, it is as if nothing had been."""

import contextlib
import errno
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mekt import catalogue
from mekt.errors import StateError
from mekt.messages import Presence, Status
from tests.federation import LITTLE, Federation, federation, undisturbed_release
from tests.nursery import forked

DEVICES = {"pi-acc": ("acc",), "pi-gyro": ("gyro",)}
PARTS = ("coordinator", *DEVICES)
SMALL: dict[str, Any] = {"devices": DEVICES, "method": LITTLE, "launch": forked, "duration_s": 100.0}
# Enough for a log, and less than any state takes.
LARGEST_FILE_BYTES = 12_000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where simulated recordings are kept, when there are no real ones."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture
def ward(tmp_path: Path, recordings: Path) -> Iterator[Federation]:
    """A federation of which nothing runs yet but the broker."""
    made = federation(tmp_path, recordings, **SMALL)
    try:
        made.listen()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> bytes:
    """The release of a run whose disks have room."""
    return undisturbed_release(tmp_path_factory.mktemp("undisturbed"), recordings, **SMALL)


@pytest.mark.parametrize("victim", ["coordinator", "pi-acc"])
def test_whose_files_cannot_grow_ends_with_an_error_and_goes_on_when_they_can(
    ward: Federation, undisturbed: bytes, victim: str
) -> None:
    ward.start(*PARTS)
    meet(ward, victim)
    # The kernel refuses to make files larger; what is there can be read.
    process = ward.processes[victim]
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES))
    assert f"error {catalogue.DISK_FAULTY.number}" in last_words(ward, victim)
    ward.start(victim)
    ward.finish()
    ward.stop()
    assert ward.release.read_bytes() == undisturbed


@pytest.mark.parametrize("victim", ["coordinator", "pi-acc"])
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_disk_that_is_full_or_read_only_is_named(
    ward: Federation, undisturbed: bytes, victim: str, trouble: str
) -> None:
    with small_disk(ward.folder / victim / "state") as disk:
        ward.start(*PARTS)
        meet(ward, victim)
        if trouble == "full":
            fill(disk / "filler")
            wanted = catalogue.DISK_FULL
        else:
            # As after an unclean end, when the kernel has found an error of the file system.
            ward.processes[victim].kill()
            ward.processes[victim].wait(20)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            ward.start(victim)
            wanted = catalogue.DISK_READ_ONLY
        assert f"error {wanted.number}" in last_words(ward, victim)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        (disk / "filler").unlink(missing_ok=True)
        ward.start(victim)
        ward.finish()
        ward.stop()
        assert ward.release.read_bytes() == undisturbed


def meet(ward: Federation, victim: str) -> None:
    """Wait until the victim is in the middle of the first round."""
    if victim == "coordinator":
        ward.until(Status, phase="collecting", round=0)
    else:
        ward.until(Presence, device=victim, activity="training", round=0)


def last_words(ward: Federation, victim: str) -> str:
    """The log of a part that ends by itself, as it must."""
    process = ward.processes.pop(victim)
    assert process.wait(60) == StateError.exit_code
    return (ward.folder / f"{victim}.log").read_text()


def fill(path: Path) -> None:
    """Leave no room on the disk that this file is on."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own at this folder, where whoever runs the tests may mount one."""
    folder.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "none", folder], check=False).returncode:
        pytest.skip("needs to be allowed to mount a disk in memory")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
