"""Every sample accounted for over a day of a bad sensor: `python -m tests.proofs.day`, or `make day`.

Two modalities whose clocks jitter, stop, leap ahead and are set back together; whose samples repeat, come in the wrong
order, are no numbers, or are never delivered, alone and in runs; whose blocks are of any size and lag behind others.
What the source gave, and what therefore has to be there, is worked out here by other code than the product's: which
samples are kept, which windows are covered, and what each of them holds. All of it goes through `Sensing` and the store
on the disk, as on a device.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.sensing import Sensing
from edge.settings import PrivateWindows
from mekt.modality import Modality, WindowSpec
from sensors.source import Block, Floats, Gap, Item, Seconds

ACC = Modality(name="acc", shape=(3,), rate_hz=50.0, unit="g")
DEPTH = Modality(name="depth", shape=(2, 3), rate_hz=10.0, unit="m")
KINDS = (ACC, DEPTH)
SPEC = WindowSpec(window_s=2.0, stride_s=1.0)
# What the product says of itself: further apart, samples are the two sides of a hole.
HOLE_S = {"acc": 0.25, "depth": 0.25}
# A sample this close to a grid point lies on it: stamps are rounded.
SAME_S = 2e-6
# Of a period, how far a stamp is off.
JITTER = 0.2
EPISODE_S = (20.0, 600.0)
BLOCK_S = (0.01, 3.0)
LAG_S = 4.0
AT_ONCE = 512


@dataclass
class Delivered:
    """What one modality gave in one stretch between two gaps: all of it in the order in which it came."""

    t_s: list[Seconds] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)


class FaultySource:
    """So many seconds of `KINDS`, with faults drawn from the seed, and what was delivered."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.modalities: tuple[Modality, ...] = KINDS
        self.stretches: list[dict[str, Delivered]] = []
        self.faults: Counter[str] = Counter()
        self._rng = np.random.default_rng(seed)
        self._left_s = seconds
        self._count = 0
        self._items = self._day()

    def open(self) -> None:
        """Nothing is to be done."""

    def close(self) -> None:
        """Nothing is to be done."""

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """The next item."""
        item = next(self._items, None)
        return None if item is None else (item,)

    def _day(self) -> Iterator[Item]:
        rng, clock_s = self._rng, 1000.0
        self._begin()
        while self._left_s > 0:
            span_s = min(float(rng.uniform(*EPISODE_S)), self._left_s)
            self._left_s -= span_s
            yield from self._episode(clock_s, span_s)
            clock_s += span_s + 0.1
            match rng.choice(["gap", "set back", "leap", "none"]):
                case "gap":
                    self.faults["gap"] += 1
                    yield Gap(modalities=tuple(each.name for each in KINDS))
                    self._begin()
                case "set back":
                    self.faults["clock set back"] += 1
                    clock_s -= float(rng.uniform(700, 5000))
                    self._begin()
                case "leap":
                    self.faults["clock leaps"] += 1
                    clock_s += float(rng.uniform(1, 100_000))
                case _:
                    pass

    def _begin(self) -> None:
        self.stretches.append({each.name: Delivered() for each in KINDS})

    def _episode(self, clock_s: float, span_s: float) -> Iterator[Item]:
        """Blocks of both modalities, each later than its samples by a lag of its own."""
        waiting: list[tuple[float, Block]] = []
        for kind in KINDS:
            t_s, values = self._stream(kind, clock_s, span_s)
            lag_s, first = float(self._rng.uniform(0, LAG_S)), 0
            while first < len(t_s):
                end = first + max(1, int(self._rng.uniform(*BLOCK_S) * kind.rate_hz))
                waiting.append(
                    (
                        float(t_s[first:end].max()) + lag_s,
                        Block(modality=kind.name, t_s=t_s[first:end], values=values[first:end]),
                    )
                )
                first = end
        # A modality's blocks keep their order, whatever their stamps say.
        order = {kind.name: -np.inf for kind in KINDS}
        ready = []
        for at_s, block in waiting:
            order[block.modality] = max(order[block.modality], at_s)
            ready.append((order[block.modality], block))
        for _, block in sorted(ready, key=lambda each: each[0]):
            delivered = self.stretches[-1][block.modality]
            delivered.t_s.append(block.t_s)
            delivered.values.append(block.values)
            yield block

    def _stream(self, kind: Modality, clock_s: float, span_s: float) -> tuple[Seconds, Floats]:
        """What a bad sensor gives: every sample's values are those of no other one."""
        rng, count = self._rng, int(span_s * kind.rate_hz)
        t_s = clock_s + (np.arange(count) + rng.uniform(-JITTER, JITTER, count)) / kind.rate_hz
        values = rng.normal(size=(count, *kind.shape)).astype(np.float32)
        values.reshape(count, -1)[:, 0] = np.arange(self._count, self._count + count) % 2**24
        self._count += count
        there = rng.random(count) > 0.002
        for _ in range(rng.poisson(span_s / 120)):
            first = int(rng.integers(0, count))
            there[first : first + int(rng.integers(2, 100))] = False
            self.faults["runs that are not delivered"] += 1
        self.faults["samples that are not delivered"] += int((~there).sum())
        bad = rng.random(count) < 0.001
        values.reshape(count, -1)[bad, rng.integers(0, values[0].size)] = rng.choice([np.nan, np.inf, -np.inf])
        self.faults["values that are no numbers"] += int((bad & there).sum())
        order = np.arange(count)
        for at in np.flatnonzero(rng.random(count - 1) < 0.002).tolist():
            order[[at, at + 1]] = order[[at + 1, at]]
            self.faults["samples in the wrong order"] += 1
        order = order[there[order]]
        again = np.repeat(order, np.where(rng.random(len(order)) < 0.002, 2, 1))
        self.faults["samples that repeat"] += len(again) - len(order)
        return t_s[again], values[again]


@dataclass(frozen=True)
class Kept:
    """Of one modality in one stretch: the samples that are to be kept, and how many are not and why."""

    t_s: Seconds
    values: Floats
    unsound: int
    early: int


def kept_of(delivered: Delivered) -> Kept:
    """Those whose values are numbers and that are later than all such before them."""
    if not delivered.t_s:
        return Kept(np.empty(0), np.empty((0,), np.float32), 0, 0)
    t_s, values = np.concatenate(delivered.t_s), np.concatenate(delivered.values)
    sound = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    unsound, t_s, values = int((~sound).sum()), t_s[sound], values[sound]
    later = t_s > np.concatenate([[-np.inf], np.maximum.accumulate(t_s)[:-1]])
    return Kept(t_s[later], values[later], unsound, int((~later).sum()))


def windows_of(kept: dict[str, Kept]) -> Iterator[tuple[float, dict[str, Floats]]]:
    """The windows that a stretch has to give, by bare arithmetic: one after the other, grid point by grid point."""
    if any(len(each.t_s) == 0 for each in kept.values()):
        return
    origin_s = max(float(each.t_s[0]) for each in kept.values())
    last_s = min(float(each.t_s[-1]) for each in kept.values())
    starts: NDArray[np.int64] | None = None
    for kind in KINDS:
        # Between holes: windows that lie in one piece from their first grid point to their last.
        t_s = kept[kind.name].t_s
        reach_s = (SPEC.samples(kind) - 1) / kind.rate_hz
        edges = np.flatnonzero(np.diff(t_s) > HOLE_S[kind.name])
        begins_s, ends_s = t_s[np.append(0, edges + 1)], t_s[np.append(edges, len(t_s) - 1)]
        own = []
        for begin_s, end_s in zip(begins_s, ends_s, strict=True):
            first = max(0, int(np.ceil((begin_s - origin_s) / SPEC.stride_s - 1e-9)))
            last = int(np.floor((end_s - reach_s - origin_s) / SPEC.stride_s + 1e-9))
            own.append(np.arange(first, last + 1))
        numbers = np.unique(np.concatenate(own))
        starts = (numbers if starts is None else np.intersect1d(starts, numbers)).astype(np.int64)
    assert starts is not None
    for number in starts.tolist():
        start_s = origin_s + number * SPEC.stride_s
        if start_s <= last_s:
            yield start_s, {kind.name: _window(kind, kept[kind.name], start_s) for kind in KINDS}


def _window(kind: Modality, kept: Kept, start_s: float) -> Floats:
    grid_s = start_s + np.arange(SPEC.samples(kind)) / kind.rate_hz
    first, end = np.searchsorted(kept.t_s, [grid_s[0] - 1, grid_s[-1] + 1])
    t_s, values = kept.t_s[first:end], kept.values[first:end]
    nearest = np.abs(t_s - grid_s[:, None]).argmin(axis=1)
    if kind.is_frames:
        return np.array(values[nearest])
    columns = [np.interp(grid_s, t_s, values[:, channel].astype(np.float64)) for channel in range(values.shape[1])]
    same = np.abs(t_s[nearest] - grid_s) <= SAME_S
    return np.where(same[:, None], values[nearest], np.stack(columns, axis=1)).astype(np.float32)


@dataclass(frozen=True)
class Account:
    """What came of it; `wrong` says what does not add up."""

    delivered: int
    kept: int
    unsound: int
    early: int
    windows: int
    faults: dict[str, int]
    wrong: list[str]


def account(seconds: float, seed: int, folder: Path, patience_s: float) -> Account:
    """Sense it all, and compare what is in the store with what has to be."""
    source, done = FaultySource(seconds, seed), threading.Event()
    capacity = int(seconds / SPEC.stride_s) + 10
    windows = PrivateWindows(capacity=capacity, least=1, whole_source=True, size_mb=1e6)
    sensing = Sensing([source], KINDS, SPEC, windows, folder=folder, enough=done.set)
    sensing.start()
    try:
        assert done.wait(patience_s), "it did not come to its end in time"
    finally:
        sensing.stop(10.0)
    wrong: list[str] = []
    stretches = [{name: kept_of(each) for name, each in stretch.items()} for stretch in source.stretches]
    expected = (window for kept in stretches for window in windows_of(kept))
    count = 0
    with sensing.hold().check() as held:
        for first in range(0, len(held), AT_ONCE):
            there = held.take(range(first, min(first + AT_ONCE, len(held))))
            for row in range(len(there["acc"])):
                window = next(expected, None)
                if window is None:
                    wrong.append(f"window {count} ought not to be there")
                    break
                for name, array in window[1].items():
                    if not _alike(name, array, there[name][row]):
                        wrong.append(f"window {count} at {window[0]:.3f} s: {name} is not what was delivered")
                count += 1
    missing = sum(1 for _ in expected)
    if missing:
        wrong.append(f"{missing} windows are missing")
    counts = sensing.counts
    totals = {
        fate: sum(getattr(each, fate) for kept in stretches for each in kept.values()) for fate in ("unsound", "early")
    }
    kept = sum(len(each.t_s) for stretch in stretches for each in stretch.values())
    told = {
        fate: sum(counts.get(f"{kind.name}: {fate}", 0) for kind in KINDS)
        for fate in ("kept", "not a number", "not later")
    }
    if told != {"kept": kept, "not a number": totals["unsound"], "not later": totals["early"]}:
        wrong.append(f"samples are counted as {told}, and are {kept} kept, {totals}")
    if counts["made"] != count + missing:
        wrong.append(f"{counts['made']} windows are counted, and are {count + missing}")
    delivered = sum(len(part) for stretch in source.stretches for each in stretch.values() for part in each.t_s)
    return Account(delivered, kept, totals["unsound"], totals["early"], count, dict(source.faults), wrong[:20])


def _alike(name: str, expected: Floats, there: Floats) -> bool:
    """Frames to the bit, signals to the rounding of another order of arithmetic."""
    if name == "depth":
        return bool(np.array_equal(expected, there))
    return bool(np.allclose(expected, there, rtol=1e-6, atol=1e-6))


def main() -> int:
    """Run it; 1 when something does not add up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mekt-day-") as folder:
        done = account(options.hours * 3600, options.seed, Path(folder), patience_s=options.hours * 3600)
    print(f"{options.hours:g} h of two modalities, seed {options.seed}, in {time.monotonic() - began_s:.0f} s")
    print("faults: " + ", ".join(f"{count} {name}" for name, count in sorted(done.faults.items())))
    print(
        f"samples: {done.delivered} delivered = {done.kept} kept + {done.unsound} that are no numbers"
        f" + {done.early} not later than one before"
    )
    print(f"windows: {done.windows}, each in the store and made of the samples that were delivered for it")
    for each in done.wrong:
        print(f"WRONG: {each}")
    return 1 if done.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
