"""Processes of Mekt that start in a moment: forked from one that has imported torch already, and nothing else done."""

import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from mekt.cli import main
from tests.federation import Launch, Running

LIMIT_S = 60.0
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


def ran(arguments: list[str], *, cwd: Path | None, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """One run of `mekt` to its end, with what it printed; the environment is this one with these changes."""
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        command = (arguments, [str(each) for each in said], str(cwd or Path.cwd()), dict(os.environ) | environment)
        process = Forked(_CONTEXT.Process(target=_run, args=command))
        try:
            code = process.wait(LIMIT_S)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, code, *(each.read_text(encoding="utf-8") for each in said))


def _run(arguments: list[str], output_paths: list[str], cwd: str, environment: dict[str, str]) -> None:
    _prints_to(*output_paths)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(main(arguments))


def _live(arguments: list[str], log_path: str, clock_s: float) -> None:
    _prints_to(log_path, log_path)
    if clock_s:
        now_s, now_ns = time.time, time.time_ns
        time.time = lambda: now_s() + clock_s
        time.time_ns = lambda: now_ns() + int(clock_s * 1e9)
    sys.exit(main(arguments))


def _prints_to(*paths: str) -> None:
    """Let standard output and standard error end in these files; nothing is read from standard input."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), number)
    # What the parent of all had set up for its own log.
    logging.getLogger().handlers.clear()
