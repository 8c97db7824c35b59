"""Processes as a test sees them from outside: which there are, and what is waited for."""

import os
import time
from collections.abc import Callable
from pathlib import Path

# For what comes to an end by itself, on however busy a machine.
PATIENCE_S = 120.0


def lives(pid: int) -> bool:
    """Whether a process of this id is there, be it one that has ended and that nobody has waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes that name this folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if f"{folder}/" in line]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "this did not happen in time"
        time.sleep(0.02)
