"""The parts of a federation as processes of this machine, each with a log: started, watched, killed, ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mekt import catalogue
from mekt.errors import MektError, SettingsError
from mekt.files import make_folder
from mekt.leash import leashed

END_S = 5.0


class PartError(MektError):
    """A part of a federation was killed by somebody else, or ended by a fault of Mekt's own."""


def ended(code: int, text: str, entry: catalogue.Entry | None = None) -> MektError:
    """The error of the family that a process' exit code names, so that who started it ends with the same code.

    `entry` is what it said of its error, if it did.
    """
    families = {each.exit_code: each for each in MektError.__subclasses__() if each.__module__ == MektError.__module__}
    if code not in families:
        return PartError(text, catalogue.PART_ENDED)
    return families[code](text, entry if entry is not None and entry.exit_code == code else None)


class Parts:
    """Processes of the `mekt` command, by name; each writes its log into the folder. On Linux none outlives us."""

    def __init__(self, folder: Path) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._arguments: dict[str, tuple[str, ...]] = {}
        self._logs = make_folder(folder / "logs")

    def start(self, name: str, *arguments: str) -> None:
        """Start `mekt` with these arguments."""
        # One thread each: the machine is shared by all of them.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self._arguments[name] = arguments
        with self.log_path(name).open("ab") as log_file:
            self.running[name] = subprocess.Popen(
                leashed([sys.executable, "-m", "mekt", *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                env=environment,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """End a process as a power cut would."""
        self.running[name].kill()
        self.running[name].wait()

    def start_again(self, name: str) -> None:
        """Start a process that has ended as it was started before; its log goes on."""
        assert self.running[name].poll() is not None, f"{name} runs"
        self.start(name, *self._arguments[name])

    def ended(self) -> dict[str, int]:
        """The exit codes of those that have ended."""
        codes = {name: process.poll() for name, process in self.running.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def check(self) -> None:
        """Raise when a process has ended.

        Raises:
            MektError: naming it, with the last line of its log.
        """
        for name in self.ended():
            raise self.failure(name)

    def failure(self, name: str) -> MektError:
        """Why a process that has ended did so: its exit code and the last line of its log."""
        code = self.running[name].returncode
        last, entry = catalogue.unmarked([*self.last_lines(name, 1), "it said nothing"][0])
        return ended(code, f"{name} ended with code {code}: {last} (all of it: {self.log_path(name)})", entry)

    def stop(self) -> None:
        """End them all, in good order where they do so in time."""
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + END_S
        for process in self.running.values():
            try:
                process.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def last_lines(self, name: str, count: int) -> list[str]:
        """The end of a process' log."""
        return self.log_path(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-count:]

    def log_path(self, name: str) -> Path:
        """Where a process' log is."""
        return self._logs / f"{name}.log"


@contextlib.contextmanager
def parts_in(folder: Path) -> Iterator[Parts]:
    """Parts with their logs in `folder`, which all have ended when the block has."""
    parts = Parts(folder)
    try:
        yield parts
    finally:
        parts.stop()


def fresh_folder(out: Path | None, name: str) -> Path:
    """An empty folder for one run alone: `out`, else the first `out/<name>-<number>` that is not there.

    Raises:
        SettingsError: when the one that was named is not empty or cannot be made.
    """
    if out is None:
        out = next(path for number in range(1, 1_000_000) if not (path := Path("out") / f"{name}-{number}").exists())
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SettingsError(
                f"--out: {out} is there and not empty; name another folder, or remove it", catalogue.OUT_UNUSABLE
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"--out: {out} cannot be made ({error.strerror}); name another folder", catalogue.OUT_UNUSABLE
        ) from error
    return out.absolute()
