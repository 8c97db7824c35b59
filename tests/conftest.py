"""What every test runs under: one thread, files in memory, and no verdict that depends on how busy the machine is."""

import gc
import os
import tempfile
from pathlib import Path

from hypothesis import settings

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 << 30


def has_room(folder: Path) -> bool:
    """Whether programs may be in a folder, and enough else."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK) and not disk.f_flag & os.ST_NOEXEC and disk.f_bavail * disk.f_frsize > ROOM_BYTES


os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whatever is kept is on disk before it is told of, and that takes a moment each time. No test cuts the power.
if "TMPDIR" not in os.environ and MEMORY.is_mount() and has_room(MEMORY):
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)
settings.register_profile("mekt", deadline=None)
settings.load_profile("mekt")


def pytest_collection_finish() -> None:
    """Modules, torch's half a million objects above all, are no garbage; collections need not look through them."""
    gc.collect()
    gc.freeze()
