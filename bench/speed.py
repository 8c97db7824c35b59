"""How fast a method is on this machine: seconds of a round by part, windows a second; medians and their spread."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.arena import Arena
from bench.engine import pace, plan_for, run
from bench.registry import METHODS
from mekt.plan import Method

ROUNDS = 3
# All parts of a round together, with its probe.
WHOLE = "round"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A median, and the smallest and largest that were seen."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """`seconds` by part, and of the whole `round`; `cpu_s` of the process a round, on `threads` threads.

    Windows a second are private ones, repetitions counted, per second of local learning; 0 where devices do not learn.
    """

    method: str
    threads: int
    participants: int
    seconds: dict[str, Spread]
    windows_per_s: Spread
    cpu_s: float


def spread(values: Sequence[float]) -> Spread:
    """Of one value or more."""
    return Spread(median=statistics.median(values), low=min(values), high=max(values))


def measure(
    arena: Arena, method: str, *, settings: Method | None = None, rounds: int = ROUNDS, seed: int = 0
) -> Figures:
    """Rounds of a method, each with its probe; the first is not counted, as much is set up in it.

    Args:
        arena: devices and windows.
        method: its name in the registry.
        settings: the method's, the product's own when None.
        rounds: how many count.
        seed: draws participants and orders batches.
    """
    plan = plan_for(arena, settings or Method(), rounds=rounds + 1, seed=seed)
    contender = METHODS[method].make(arena, plan, seed)
    began_s = time.process_time()
    done = run(contender, arena, plan, evaluate=range(1, rounds + 2))
    cpu_s = (time.process_time() - began_s) / (rounds + 1)
    counted = done.played[1:]
    parts = {part: spread([each.seconds[part] for each in counted]) for part in counted[0].seconds}
    return Figures(
        method=method,
        threads=torch.get_num_threads(),
        participants=len(counted[0].participants),
        seconds={**parts, WHOLE: spread([sum(each.seconds.values()) for each in counted])},
        windows_per_s=spread([pace(each.windows, each.seconds["local"]) for each in counted]),
        cpu_s=cpu_s,
    )
