"""Cells brought to their end: those that are kept are left alone, the others run, each kept as soon as it is done."""

import contextlib
import logging
import signal
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TextIO

from bench.cells import Cell, Kept, Shelf, of_older_code
from bench.pool import Began, Done, Failed, Moved, run_cells
from bench.progress import Progress

log = logging.getLogger(__name__)


def kept_of(shelf: Shelf, cells: Sequence[Cell], code: str, *, fresh: bool) -> dict[Cell, Kept]:
    """What is kept of these cells, without what other code made when it shall be `fresh`."""
    kept = shelf.find(cells)
    older = of_older_code(kept, code)
    if older and fresh:
        return {cell: each for cell, each in kept.items() if cell not in older}
    if older:
        log.warning(
            "%d of %d kept runs were made by other code than this; --fresh makes them again", len(older), len(kept)
        )
    return kept


def finish(
    cells: Sequence[Cell],
    kept: dict[Cell, Kept],
    shelf: Shelf,
    *,
    command: Sequence[str],
    code: str,
    jobs: int,
    out: TextIO,
) -> list[Failed]:
    """Run what is not in `kept` and put it there; those that failed. Ctrl-C and SIGTERM lose only what is running.

    Raises:
        StateError: when nothing more can be kept.
        KeyboardInterrupt: when it was asked to end.
    """
    waiting = [cell for cell in cells if cell not in kept]
    progress = Progress(cells, kept, jobs=jobs, out=out)
    if kept:
        progress.say(f"{len(kept)} of {len(cells)} runs are there already, in {shelf.folder}; they are not repeated.")
    failed: list[Failed] = []
    logs = shelf.folder.parent / "logs"
    events = run_cells(waiting, command=command, jobs=min(jobs, len(waiting)), logs=logs)
    try:
        with _ended_by_sigterm(), contextlib.closing(events):
            for event in events:
                match event:
                    case Began():
                        progress.began(event.cell)
                    case Moved():
                        progress.moved(event.cell, event.share)
                    case Done():
                        _keep(kept, shelf, event, code)
                        progress.ended(event.cell, event.took_s, "done")
                    case Failed():
                        failed.append(event)
                        progress.ended(event.cell, None, f"failed: {event.reason}")
    except KeyboardInterrupt:
        progress.say(
            f"Interrupted. {len(kept)} of {len(cells)} runs are kept in {shelf.folder}; the same command goes on there."
        )
        raise
    finally:
        progress.close()
    return failed


def _keep(kept: dict[Cell, Kept], shelf: Shelf, done: Done, code: str) -> None:
    """Keep what a run gave; an interrupt waits for that."""
    try:
        kept[done.cell] = shelf.put(done.cell, done.outcome, code=code, took_s=done.took_s)
    except KeyboardInterrupt:
        kept[done.cell] = shelf.put(done.cell, done.outcome, code=code, took_s=done.took_s)
        raise


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does."""

    def asked(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
