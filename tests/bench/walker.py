"""A process that serves cells without learning anything: what a cell's method is called says what it does.

`walk` tells half its way and ends well, `fall` raises, `refuse` raises an error of the settings, `die` kills itself.
Every beginning is a line of the journal. While a file `hold` lies beside it, only the first few walks end.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.cells import Cell, Evaluation, Outcome, Traffic
from bench.worker import serve
from mekt.errors import SettingsError

FREE_WALKS = 4


def outcome(score: float = 0.5, *, rounds: int = 2, size: int = 1000, exchanges: bool = True) -> Outcome:
    """What a run gave whose scores rise evenly from 0.1; `size` bytes up and down for each of two participants."""
    numbers = range(rounds + 1)
    sizes = {"payload": 2 * size}
    return Outcome(
        evaluations=tuple(
            Evaluation(round=number, scores={"fused": {"weighted_f1": 0.1 + (score - 0.1) * number / rounds}})
            for number in numbers
        ),
        traffic=tuple(
            Traffic(
                round=number,
                devices=2 if exchanges else 0,
                up=sizes if exchanges else {},
                down=sizes | ({"proxy": 8 * size} if number == 1 else {"others": size}) if exchanges else {},
            )
            for number in numbers[1:]
        ),
        seconds={"local": 2.0 * rounds, "distil": 1.0 * rounds, "probe": 9.0},
        windows=400,
        devices=4,
        proxy_windows=64,
    )


def walk(cell: Cell, tell: Callable[[float], None]) -> Outcome:
    with Path(sys.argv[1]).open("a", encoding="utf-8") as journal:
        journal.write(f"{cell.method} {cell.seed}\n")
    tell(0.5)
    match cell.method:
        case "fall":
            raise ValueError("the floor is wet")
        case "refuse":
            raise SettingsError("changes.alpha: expected less")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            pass
    # Nobody has to be quick to find some that have ended and others that have not.
    while cell.seed >= FREE_WALKS and Path(sys.argv[1]).with_name("hold").exists():
        time.sleep(0.01)
    return outcome(0.5 + cell.seed / 100)


if __name__ == "__main__":
    serve(walk)
