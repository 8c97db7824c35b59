"""The side of a process that runs cells: a cell comes in as a line, what happens goes out as lines.

It ends with whoever started it: as soon as its standard input ends, in the middle of a run too.
"""

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from bench.cells import Cell, Outcome, cell_of
from mekt.errors import MektError
from mekt.schema import plain

# What runs a cell: the cell, what to tell about the share done so far -> what it gave.
RunCell = Callable[[Cell, Callable[[float], None]], Outcome]


def serve(run: RunCell) -> None:
    """Run the cells that come, until no more can."""
    # Whatever a library prints belongs to the log.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    while True:
        cell = cell_of(json.loads(lines.get()))
        began_s = time.monotonic()
        try:
            outcome = run(cell, lambda share: tell(kind="moved", share=share))
        except MektError as error:
            tell(kind="failed", reason=str(error), exit_code=error.exit_code, number=error.number)
        except Exception as error:
            traceback.print_exc()
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
            tell(kind="failed", reason=reason, exit_code=1)
        else:
            tell(kind="done", outcome=plain(outcome), took_s=time.monotonic() - began_s)


def _read(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)
