"""How far a bench is: runs done, and the time left as the finished ones foretell it."""

import shutil
import time
from collections.abc import Iterable, Mapping
from typing import TextIO

from bench.cells import Cell, Kept

# A share of a run says nothing about the rest of it before this.
TELLING_SHARE = 0.05


class Forecast:
    """How long runs will take, from those that were made: of the same work, else the nearest to it. Pure."""

    def __init__(self, kept: Mapping[Cell, Kept]) -> None:
        self._took_s: dict[tuple[object, ...], list[float]] = {}
        for cell, each in kept.items():
            self.learn(cell, each.took_s)

    def learn(self, cell: Cell, took_s: float) -> None:
        """A run of `cell` took so long."""
        for rank in _ranks(cell):
            self._took_s.setdefault(rank, []).append(took_s)

    def took_s(self, cell: Cell) -> float | None:
        """What a run of `cell` will take; None when there is nothing to go by."""
        for rank in _ranks(cell):
            if rank in self._took_s:
                return sum(self._took_s[rank]) / len(self._took_s[rank])
        return None

    def left_s(self, waiting: Iterable[Cell], running: Mapping[Cell, tuple[float, float]], jobs: int) -> float | None:
        """Seconds until all is done; `running`: cell -> seconds since it began, share that is done."""
        work_s, longest_s, known, unknown = 0.0, 0.0, 0, 0
        for cell, (since_s, share) in running.items():
            whole_s = since_s / share if share >= TELLING_SHARE else self.took_s(cell)
            if whole_s is None:
                unknown += 1
                continue
            left_s = max(0.0, whole_s - since_s)
            work_s, longest_s, known = work_s + left_s, max(longest_s, left_s), known + 1
        going_s = [since_s / share for since_s, share in running.values() if share >= TELLING_SHARE]
        for cell in waiting:
            took_s = self.took_s(cell)
            if took_s is None and going_s:
                took_s = sum(going_s) / len(going_s)
            if took_s is None:
                unknown += 1
                continue
            work_s, longest_s, known = work_s + took_s, max(longest_s, took_s), known + 1
        if known == 0:
            return None if unknown else 0.0
        return max(longest_s, work_s * (known + unknown) / known / jobs)


def _ranks(cell: Cell) -> tuple[tuple[object, ...], ...]:
    """What a run's time is like, the nearest first."""
    return (
        (cell.protocol, cell.method, cell.rounds, cell.changes, cell.proxy_windows, cell.only, cell.models, cell.quick),
        (cell.protocol, cell.method, cell.rounds, cell.quick),
        (cell.protocol, cell.quick),
        (cell.quick,),
    )


def duration(seconds: float) -> str:
    """Seconds for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Tells how far it is: on a terminal in one line that changes, elsewhere in a line for each run."""

    def __init__(self, cells: Iterable[Cell], kept: Mapping[Cell, Kept], *, jobs: int, out: TextIO) -> None:
        self._waiting = [cell for cell in cells if cell not in kept]
        self._whole = len(self._waiting) + len(kept)
        self._done = len(kept)
        self._jobs = max(1, jobs)
        self._forecast = Forecast(kept)
        self._running: dict[Cell, tuple[float, float]] = {}
        self._out = out
        self._live = out.isatty()

    def began(self, cell: Cell) -> None:
        """A run of `cell` began."""
        self._waiting.remove(cell)
        self._running[cell] = (time.monotonic(), 0.0)
        self._show(cell.name)

    def moved(self, cell: Cell, share: float) -> None:
        """So much of it is done."""
        self._running[cell] = (self._running[cell][0], share)
        self._show(cell.name)

    def ended(self, cell: Cell, took_s: float | None, what: str) -> None:
        """It is over; `took_s` is None when it failed. `what` says in a few words how it went."""
        began_s, _ = self._running.pop(cell)
        if took_s is not None:
            self._forecast.learn(cell, took_s)
        self._done += 1
        line = f"{self._counts()}: {cell.name}: {what}, {duration(time.monotonic() - began_s)}{self._left()}"
        if self._live and took_s is not None:
            self._show(cell.name)
        else:
            self.say(line)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._out.write(("\r\x1b[2K" if self._live else "") + text + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing more will change."""
        if self._live:
            self._out.write("\r\x1b[2K")
            self._out.flush()

    def _show(self, what: str) -> None:
        if not self._live:
            return
        now = f"{self._counts()}{self._left()}  {what}"
        # A line that wrapped could not be written over.
        self._out.write("\r\x1b[2K" + now[: shutil.get_terminal_size().columns - 1])
        self._out.flush()

    def _counts(self) -> str:
        return f"{self._done} of {self._whole} runs"

    def _left(self) -> str:
        now_s = time.monotonic()
        running = {cell: (now_s - began_s, share) for cell, (began_s, share) in self._running.items()}
        left_s = self._forecast.left_s(self._waiting, running, self._jobs)
        return "" if left_s is None or not (running or self._waiting) else f", about {duration(left_s)} left"
