"""Processes of Mekt that start in a moment: forked from one that has imported torch already, and nothing else done."""

import logging
import multiprocessing
import os
import subprocess
import sys
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from mekt.cli import main
from tests.federation import Launch, Running

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["coordinator.daemon", "edge.daemon", "tests.nursery"])


class Forked:
    """A forked process, in the words of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int, /) -> None:
        os.kill(self.pid, number)


def forked(arguments: list[str], log_path: Path, *, clock_s: float = 0.0) -> Running:
    """Run `mekt` with these arguments; its wall clock is `clock_s` ahead."""
    return Forked(_CONTEXT.Process(target=_live, args=(arguments, str(log_path), clock_s)))


def with_clock(clock_s: float) -> Launch:
    """Launches processes whose wall clock is so far ahead."""
    return partial(forked, clock_s=clock_s)


def _live(arguments: list[str], log_path: str, clock_s: float) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    # What the parent of all had set up for its own log.
    logging.getLogger().handlers.clear()
    if clock_s:
        now_s, now_ns = time.time, time.time_ns
        time.time = lambda: now_s() + clock_s
        time.time_ns = lambda: now_ns() + int(clock_s * 1e9)
    sys.exit(main(arguments))
