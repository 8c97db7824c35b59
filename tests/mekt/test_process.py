"""What every daemon needs around it: an end when it is asked for, one process per folder, jobs that report."""

import contextlib
import errno
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mekt.errors import StateError
from mekt.process import Job, JobDone, Stop, held_by, log_to_stderr, memory_bytes, only_process

WAIT_S = 20.0
ROOT = Path(__file__).parents[2]
Progress = Callable[[int, int], None]


@contextlib.contextmanager
def python(code: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """A process that runs `code`; what it prints can be read line by line. It does not outlive the block."""
    command = [sys.executable, "-u", "-c", code, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


WAITING = """
import time
from mekt.process import Stop
with Stop().on_signals() as stop:
    print("ready")
    while not stop.requested:
        time.sleep(0.01)
    print("asked")
    {after}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_the_end_and_the_process_goes_on_to_it(number: signal.Signals) -> None:
    with python(WAITING.format(after="print('in good order')")) as process:
        assert line_of(process) == "ready"
        process.send_signal(number)
        assert [line_of(process), line_of(process)] == ["asked", "in good order"]
        assert process.wait(WAIT_S) == 0


def test_a_second_signal_ends_the_process_at_once() -> None:
    with python(WAITING.format(after="time.sleep(60)")) as process:
        assert line_of(process) == "ready"
        process.send_signal(signal.SIGTERM)
        assert line_of(process) == "asked"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) != 0
        assert process.stderr is not None and "KeyboardInterrupt" in process.stderr.read()


def test_signals_are_given_back_when_the_block_ends() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Stop().on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_any_thread_may_ask() -> None:
    stop = Stop()
    thread = threading.Thread(target=stop.request)
    thread.start()
    thread.join(WAIT_S)
    assert stop.requested


KEEPING = """
import sys
from pathlib import Path
from mekt.process import only_process
with only_process(Path(sys.argv[1])) as folder:
    print(folder)
    input()
"""


def test_a_folder_is_made_and_kept_for_one_process_which_the_lock_names(tmp_path: Path) -> None:
    state = tmp_path / "a" / "state"
    with python(KEEPING, str(state)) as other:
        assert line_of(other) == str(state)
        with pytest.raises(StateError, match=f"state: in use by process {other.pid}; end it"), only_process(state):
            pass
    # It was killed, as by a power cut: nothing was cleaned up.
    with only_process(state) as folder:
        assert (folder / "lock").read_text() == f"process {os.getpid()}\n"


def test_others_can_ask_who_has_a_folder_and_change_nothing_by_it(tmp_path: Path) -> None:
    assert held_by(tmp_path) is held_by(tmp_path / "none") is None
    assert list(tmp_path.iterdir()) == []
    with python(KEEPING, str(tmp_path)) as other:
        line_of(other)
        assert held_by(tmp_path) == f"process {other.pid}"
    assert held_by(tmp_path) is None
    with only_process(tmp_path):
        assert held_by(tmp_path) == f"process {os.getpid()}"


def test_the_lock_is_free_again_when_the_block_ends_however_it_ends(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_process(tmp_path):
        raise ZeroDivisionError
    with only_process(tmp_path), pytest.raises(StateError, match="in use"), only_process(tmp_path):
        pass
    with only_process(tmp_path):
        pass


def test_a_lock_without_a_name_in_it_is_a_lock(tmp_path: Path) -> None:
    with only_process(tmp_path):
        (tmp_path / "lock").write_bytes(b"")
        with pytest.raises(StateError, match="in use by another process"), only_process(tmp_path):
            pass


def test_a_disk_that_takes_nothing_any_more_can_still_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a card of flash is after errors: what is on it may be used, and whoever needs to write says so."""
    with only_process(tmp_path):
        pass
    opened = os.open

    def read_only(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *more)

    monkeypatch.setattr("os.open", read_only)
    one, another = (only_process(tmp_path, may_be_read_only=True) for _ in range(2))
    with one, pytest.raises(StateError, match="in use by process"), another:
        pass
    for refused in (only_process(tmp_path), only_process(tmp_path / "new", may_be_read_only=True)):
        with pytest.raises(StateError, match="cannot be written"), refused:
            pass


@pytest.mark.parametrize("place", ["file/state", "state"])
def test_a_folder_that_cannot_be_is_a_state_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "state" / "lock").mkdir(parents=True)
    with pytest.raises(StateError, match="cannot be"), only_process(tmp_path / place):
        pass


def test_a_job_reports_its_result() -> None:
    inbox: queue.Queue[Any] = queue.Queue()
    assert Job("sum", lambda _: 1 + 1, inbox).name == "sum"
    assert inbox.get(timeout=WAIT_S) == JobDone(name="sum", result=2)


def test_a_job_tells_how_far_it_is() -> None:
    inbox: queue.Queue[Any] = queue.Queue()
    halfway, go_on = threading.Event(), threading.Event()

    def work(progress: Progress) -> None:
        progress(0, 0)
        progress(1, 2)
        halfway.set()
        assert go_on.wait(WAIT_S)
        progress(2, 2)

    job = Job("work", work, inbox)
    assert halfway.wait(WAIT_S) and job.share_done == 0.5
    go_on.set()
    assert inbox.get(timeout=WAIT_S) == JobDone(name="work") and job.share_done == 1.0


@pytest.mark.parametrize("error", [StateError("full"), ValueError("diverged"), MemoryError()])
def test_a_job_reports_its_error(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    inbox: queue.Queue[Any] = queue.Queue()

    def work(_: Progress) -> None:
        raise error

    Job("work", work, inbox)
    assert inbox.get(timeout=WAIT_S) == JobDone(name="work", error=error)
    assert bool(caplog.records) == (not isinstance(error, StateError)), "a traceback is for our own faults"


def test_a_job_that_was_cancelled_stops_and_is_silent() -> None:
    inbox: queue.Queue[Any] = queue.Queue()
    began, ended = threading.Event(), threading.Event()

    def work(progress: Progress) -> None:
        try:
            while True:
                progress(1, 2)
                began.set()
        finally:
            ended.set()

    job = Job("endless", work, inbox)
    assert began.wait(WAIT_S)
    job.cancel(WAIT_S)
    assert ended.is_set() and inbox.empty()


def test_a_job_that_ends_after_it_was_cancelled_is_silent() -> None:
    inbox: queue.Queue[Any] = queue.Queue()
    go_on = threading.Event()
    before = threading.active_count()
    job = Job("deaf", lambda _: go_on.wait(WAIT_S), inbox)
    job.cancel(0.01)
    go_on.set()
    job.cancel(WAIT_S)
    assert inbox.empty() and threading.active_count() == before


def test_a_job_waits_until_there_is_room_for_its_report() -> None:
    inbox: queue.Queue[Any] = queue.Queue(1)
    inbox.put("something else")
    Job("work", lambda _: 1, inbox)
    assert inbox.get(timeout=WAIT_S) == "something else"
    assert inbox.get(timeout=WAIT_S) == JobDone(name="work", result=1)


def test_the_log_has_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log_to_stderr("warning")
        logging.getLogger("mekt.test").warning("hot")
        logging.getLogger("mekt.test").info("cold")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    said = capsys.readouterr().err
    assert "WARNING hot" in said and "cold" not in said


def test_a_machine_has_some_memory() -> None:
    assert 100e6 < memory_bytes() < 1e15


def test_whoever_sleeps_is_woken_when_the_end_is_asked_for_by_a_signal_or_a_thread() -> None:
    for ask in (lambda stop: stop.request(), lambda stop: os.kill(os.getpid(), signal.SIGTERM)):
        woken = threading.Event()
        with Stop().on_signals() as stop:
            stop.then = woken.set
            ask(stop)
            assert woken.wait(60)
            assert stop.requested
