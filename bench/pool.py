"""Several runs at a time, each in a process: one that dies takes its own run along and no other."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cells import Cell, Outcome
from mekt import catalogue
from mekt.files import make_folder
from mekt.schema import build

END_S = 3.0
# A signal that comes just before a wait without an end is heard only after it.
LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Began:
    """A process took up this cell."""

    cell: Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """So much of this cell is done, from 0 to 1."""

    cell: Cell
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """This cell gave this."""

    cell: Cell
    outcome: Outcome
    took_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """This cell gave nothing, for a reason in one line; `exit_code` and `number` as the error has them."""

    cell: Cell
    reason: str
    exit_code: int = 1
    number: int = catalogue.OWN_FAULT.number


Event = Began | Moved | Done | Failed


def run_cells(cells: Sequence[Cell], *, command: Sequence[str], jobs: int, logs: Path) -> Generator[Event, None, None]:
    """Run every cell once, `jobs` at a time; what happens, as it happens.

    `command` starts a process that serves cells (bench/worker.py). Closing the iterator ends all of them.
    """
    waiting = deque(cells)
    heard: queue.SimpleQueue[tuple[_Worker, str | None]] = queue.SimpleQueue()
    workers: list[_Worker] = []
    make_folder(logs)
    started = 0
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                started += 1
                workers.append(_Worker(command, logs / f"worker-{started}.log", heard))
                yield workers[-1].give(waiting.popleft())
            try:
                worker, line = heard.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if worker not in workers:
                continue
            event = worker.event(line)
            yield event
            if isinstance(event, Moved):
                continue
            if waiting and line is not None:
                yield worker.give(waiting.popleft())
            else:
                workers.remove(worker)
                worker.end()
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()


class _Worker:
    """A process that runs one cell after the other; a thread hands on what it says, None when it has ended."""

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        heard: "queue.SimpleQueue[tuple[_Worker, str | None]]",
    ) -> None:
        # One thread each: the processes share the machine.
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        environment = os.environ | threads | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._log_path = log_path
        self._cell: Cell | None = None
        with log_path.open("wb") as log_file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                env=environment,
                # Ctrl-C is for whoever started it all.
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(heard,), daemon=True).start()

    def give(self, cell: Cell) -> Began:
        """Have it run `cell`; one that is gone already says so by itself."""
        assert self.process.stdin is not None
        self._cell = cell
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(cell.plain()) + "\n")
            self.process.stdin.flush()
        return Began(cell=cell)

    def event(self, line: str | None) -> Event:
        """What a line says about the cell it has."""
        assert self._cell is not None
        if line is None:
            return Failed(cell=self._cell, reason=self._why_it_ended())
        told = json.loads(line)
        match told.pop("kind"):
            case "moved":
                return Moved(cell=self._cell, **told)
            case "done":
                return Done(cell=self._cell, outcome=build(Outcome, told["outcome"]), took_s=told["took_s"])
            case _:
                return Failed(cell=self._cell, **told)

    def end(self) -> None:
        """End it, at once where it does not by itself."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _listen(self, heard: "queue.SimpleQueue[tuple[_Worker, str | None]]") -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                heard.put((self, line))
        heard.put((self, None))

    def _why_it_ended(self) -> str:
        code = self.process.wait()
        if code < 0:
            hint = " (memory may have run out)" if -code == signal.SIGKILL else ""
            return f"its process was ended by {signal.Signals(-code).name}{hint}"
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process ended with code {code}: {lines[-1] if lines else 'it said nothing'}"
