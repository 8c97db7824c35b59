"""What a part needs of the machine: memory, a state folder on a disk with room, and a clock that goes right."""

import ctypes
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mekt import catalogue
from mekt.catalogue import Entry
from mekt.check import Check, Role, failed, ok, skipped, warning
from mekt.errors import StateError
from mekt.process import held_by, memory_bytes

MB = 1_000_000
# Resident memory as measured, and a bit: torch that learns 320 MB, with onnx and onnxruntime 380, a wearable 65.
MEMORY_BYTES: dict[Role, int] = {"edge": 350 * MB, "coordinator": 500 * MB, "wearable": 80 * MB}
# Of free disk: below the first there is a warning, below the second not even a round's knowledge fits.
ROOM_BYTES, LEAST_ROOM_BYTES = 500 * MB, 20 * MB
# Written on trial: more than what a disk that is full to the last block has left.
TRIAL_BYTES = 64 * 1024
# A clock may be corrected by this much and nobody minds.
TOLERANCE_S = 60.0
# Files of a state folder that are looked at; there are a few hundred.
MOST_FILES = 20_000
# Linux' struct timex on 64-bit systems: where the status is, and how large all of it may be.
TIMEX_BYTES, ESTIMATE_OFFSET, STATUS_OFFSET, UNSYNCHRONISED = 256, 24, 40, 0x40


def check_memory(role: Role) -> Check:
    """Whether there is enough memory to learn in."""
    whole, free, wanted = memory_bytes(), available_bytes(), MEMORY_BYTES[role]
    seen = f"{free // MB} MB available of {whole // MB}"
    if free >= wanted:
        return ok("memory", seen)
    remedy = f"end other processes or add swap: this part takes about {wanted // MB} MB"
    return warning("memory", seen, remedy)


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that a new process may take, as the kernel sees it; all there is where it does not say."""
    free = memory_bytes()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(meminfo), re.M)
    if found is not None:
        free = min(free, 1024 * int(found[1]))
    limit, used = _text(cgroup / "memory.max").strip(), _text(cgroup / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    return free


def check_state(folder: Path) -> Iterator[Check]:
    """Whether the state folder may be written, has room, and is nobody else's. Nothing is left behind."""
    found = _trial(folder) or _foreign_file(folder)
    if found is not None:
        problem, entry = found
        remedy = "mend its owner or permissions, or name another state folder"
        yield failed("state folder", f"{folder}: {problem}", remedy, StateError, entry)
        yield from (skipped(name, "the state folder is not well") for name in ("disk", "lock"))
        return
    yield ok("state folder", f"{folder}: can be {'written' if folder.is_dir() else 'made'}")
    yield _room(folder)
    yield _lock(folder)


def _trial(folder: Path) -> tuple[str, Entry] | None:
    """What hinders writing in the folder, or making it where it is not there yet; None when nothing does."""
    place = folder.absolute()
    try:
        while not os.path.lexists(place):
            place = place.parent
        if not place.is_dir():
            return f"cannot be a folder, as {place} is none", catalogue.NOT_A_FOLDER
        # A folder of our own inside: what a daemon makes there first.
        with tempfile.TemporaryDirectory(prefix=".mekt-doctor-", dir=place) as trial:
            _write(Path(trial) / "trial")
    except OSError as error:
        return f"cannot be written ({error.strerror})", catalogue.of_disk(error)
    return None


def _write(path: Path) -> None:
    with path.open("wb") as file:
        file.write(bytes(TRIAL_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _foreign_file(folder: Path) -> tuple[str, Entry] | None:
    """A file of an earlier run that this user cannot change: mostly that of a start as root, once."""
    for path in _files(folder):
        if not os.access(path, os.R_OK | os.W_OK):
            return f"holds {path.name}, which this user cannot change", catalogue.DISK_FORBIDDEN
    return None


def _files(folder: Path) -> Iterator[Path]:
    """Files in the folder and below, a bounded number; what vanishes meanwhile is no matter."""
    count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if count == MOST_FILES:
                return
            count += 1
            yield Path(place) / name


def _room(folder: Path) -> Check:
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return failed(
            "disk", f"{place}: does not say ({error.strerror})", "mend the disk", StateError, catalogue.of_disk(error)
        )
    seen = f"{free // MB} MB free at {place}"
    if free < LEAST_ROOM_BYTES:
        remedy = "free space, or name a state folder on another disk"
        return failed("disk", seen, remedy, StateError, catalogue.DISK_FULL)
    if free < ROOM_BYTES:
        return warning("disk", seen, f"free space: state may grow to some {ROOM_BYTES // MB} MB")
    return ok("disk", seen)


def _lock(folder: Path) -> Check:
    try:
        owner = held_by(folder)
    except OSError as error:
        seen = f"{folder / 'lock'}: cannot be locked ({error.strerror})"
        return failed("lock", seen, "remove it", StateError, catalogue.NOT_LOCKABLE)
    if owner is None:
        return ok("lock", "no other process uses the state folder")
    remedy = "if that is the part itself, it runs already; else end it, or name another state folder"
    return failed("lock", f"the state folder is in use by {owner}", remedy, StateError, catalogue.STATE_IN_USE)


# Clocks


def check_clock(folder: Path | None, now_s: float | None = None) -> Iterator[Check]:
    """Whether the clock is set by another one, and not before what has been written here already."""
    yield _synchronised()
    now_s = time.time() if now_s is None else now_s
    places = [("Mekt's own files", Path(__file__).parent)]
    if folder is not None:
        places.append(("the state folder", folder))
    newest = [(when, name) for name, place in places if (when := _newest_s(place)) is not None]
    if not newest:
        yield skipped("clock", f"it says {moment(now_s)}; there is no file to compare it with")
        return
    when, name = max(newest)
    if now_s + TOLERANCE_S < when:
        seen = f"it says {moment(now_s)}, and the newest of {name} is of {moment(when)}"
        yield warning("clock", seen, "set it: `timedatectl set-ntp true`, or a battery for the board's clock")
    else:
        yield ok("clock", f"it says {moment(now_s)}, after the newest of {' and '.join(each for _, each in newest)}")


def _newest_s(place: Path) -> float | None:
    times = []
    for path in _files(place):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)


def moment(seconds: float) -> str:
    """A time of the wall clock for people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _synchronised() -> Check:
    name = "clock sync"
    if not sys.platform.startswith("linux"):
        return skipped(name, "only Linux' kernel says whether its clock is synchronised")
    timex = (ctypes.c_char * TIMEX_BYTES)()  # all zeros ask, and change nothing
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError) as error:
        return skipped(name, f"the kernel cannot be asked ({error})")
    if state < 0:
        return skipped(name, f"the kernel does not say ({os.strerror(ctypes.get_errno())})")
    raw = bytes(timex)
    status = int.from_bytes(raw[STATUS_OFFSET : STATUS_OFFSET + 4], sys.byteorder)
    return synchronised(status, int.from_bytes(raw[ESTIMATE_OFFSET : ESTIMATE_OFFSET + 8], sys.byteorder))


def synchronised(status: int, most_us: int) -> Check:
    """What the kernel's `status` of its clock means, and its bound of the error in microseconds."""
    if status & UNSYNCHRONISED:
        remedy = "start a time service: `timedatectl set-ntp true`, chrony or ntpd"
        return warning(
            "clock sync", "the kernel's clock is not synchronised, or by something that does not say", remedy
        )
    return ok("clock sync", f"the kernel's clock is synchronised, to {most_us / 1e6:.3g} s at worst")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
