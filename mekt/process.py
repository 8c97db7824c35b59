"""What every daemon needs around it: a log, an end on SIGTERM, one process per state folder, one job off its loop."""

import _thread
import contextlib
import errno
import fcntl
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mekt import catalogue
from mekt.errors import MektError, StateError

log = logging.getLogger(__name__)

# How long the loop of a daemon sleeps at most; a signal is answered after that.
LOOP_S = 0.2
INBOX_EVENTS = 4096


def log_to_stderr(level: str) -> None:
    """Log lines with time and level on standard error; `level` as in `logging`, in small letters."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", force=True
    )


def memory_bytes() -> int:
    """How much memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Stop:
    """Whether somebody asked this process to end: SIGTERM, SIGINT, or `request`.

    `then` is called when that happens, on a thread of its own, so that it may wait for a lock: whoever sleeps without
    looking can be woken.
    """

    def __init__(self) -> None:
        self.requested = False
        self.then: Callable[[], None] | None = None

    def request(self) -> None:
        """Ask for the end; any thread may."""
        self.requested = True
        if self.then is not None:
            # The least that starts a thread: a signal may come while `threading` itself holds a lock.
            _thread.start_new_thread(self.then, ())

    @contextlib.contextmanager
    def on_signals(self) -> Iterator["Stop"]:
        """Let the signals ask, until the block ends. A second signal ends the process at once."""

        def asked(number: int, _: FrameType | None) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.request()

        before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def only_process(folder: Path, *, may_be_read_only: bool = False) -> Iterator[Path]:
    """`folder`, made where it is missing and kept for this process alone until the block ends.

    A disk that became read-only can still be locked, by who can do with what is on it.

    Raises:
        StateError: when another process has it, naming that process, or it cannot be written.
    """
    # Only here, as it brings numpy along: the command line has to start where numpy cannot, to say so.
    from mekt.files import make_folder

    path = make_folder(folder) / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if not (may_be_read_only and error.errno == errno.EROFS and path.exists()):
            raise StateError(
                f"{path}: cannot be written ({error.strerror}); mend permissions or free space",
                catalogue.of_disk(error),
            ) from error
        descriptor = os.open(path, os.O_RDONLY)
    with os.fdopen(descriptor) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(
                f"{folder}: in use by {_owner(path)}; end it, or name another state folder", catalogue.STATE_IN_USE
            ) from error
        except OSError as error:
            raise StateError(
                f"{path}: cannot be locked ({error.strerror}); choose a folder on a local disk", catalogue.NOT_LOCKABLE
            ) from error
        # On a full disk the lock is there, and only nameless.
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()}\n".encode())
        yield folder


def held_by(folder: Path) -> str | None:
    """The process that keeps `folder` for itself, or None when none does; nothing there is changed.

    Raises:
        OSError: when that cannot be found out.
    """
    path = folder / "lock"
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _owner(path)
    return None


def _owner(path: Path) -> str:
    """Who says that it has the lock; it may be between locking and saying so."""
    try:
        return path.read_bytes()[:64].decode(errors="replace").strip() or "another process"
    except OSError:
        return "another process"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobDone:
    """A job came to its end: with a result, or with the error that ended it."""

    name: str
    result: Any = None
    error: BaseException | None = None


class JobCancelledError(Exception):
    """The job was told to stop, and did."""


class Job:
    """One piece of long work on a thread of its own, which reports to an inbox. Its `work` calls `progress` often.

    A job that was cancelled does not report, but for one that was ending at that moment: its name tells it apart.
    """

    def __init__(self, name: str, work: Callable[[Callable[[int, int], None]], Any], inbox: "queue.Queue[Any]") -> None:
        self.name = name
        self.share_done = 0.0
        self._work = work
        self._inbox = inbox
        self._cancelled = False
        self._thread = threading.Thread(target=self._run, name=f"mekt-{name}", daemon=True)
        self._thread.start()

    def cancel(self, timeout_s: float) -> None:
        """Ask the work to stop, and wait for it."""
        self._cancelled = True
        self._thread.join(timeout_s)

    def _progress(self, done: int, whole: int) -> None:
        if self._cancelled:
            raise JobCancelledError
        self.share_done = done / whole if whole else 1.0

    def _run(self) -> None:
        try:
            outcome = JobDone(name=self.name, result=self._work(self._progress))
        except JobCancelledError:
            return
        except Exception as error:
            if not isinstance(error, MektError):
                log.exception("%s failed", self.name)
            outcome = JobDone(name=self.name, error=error)
        if not self._cancelled:
            self._inbox.put(outcome)
