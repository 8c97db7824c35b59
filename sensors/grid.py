"""Which windows of a grid can be given, and of which modalities. Pure.

Window k starts at origin + k * stride. Of a window each modality either covers it, or may yet do so, or never will;
which of these changes only where a stretch of samples begins or ends, so that the cost is that of the stretches, not of
the time that has passed: a clock may leap ahead by years.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sensors.source import Seconds
from sensors.track import SLACK_S, Track

Windows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Where windows start, in seconds."""

    origin_s: float
    stride_s: float

    def start_s(self, window: float) -> float:
        """When this window starts."""
        return self.origin_s + window * self.stride_s

    def starts_s(self, windows: Windows) -> Seconds:
        """When these windows start, (N,)."""
        starts_s: Seconds = self.origin_s + windows.astype(np.float64) * self.stride_s
        return starts_s

    def first(self, holds: Callable[[float], bool], about_s: float) -> float:
        """The first window of whose start `holds` is true, as of all later ones; that is at `about_s`, as computed."""
        if not math.isfinite(about_s):
            return about_s
        about = (about_s - self.origin_s) // self.stride_s
        # The quotient is rounded; what counts is the comparison.
        return next((window for window in (about - 1, about, about + 1) if holds(self.start_s(window))), about + 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Decision:
    """Of the windows before `stop`, `windows` (N,) are given, each with the set of number `sets` (N,); others never."""

    stop: int
    windows: Windows
    sets: NDArray[np.int64]


def decide(
    grid: Grid, tracks: Mapping[str, Track], sets: Sequence[frozenset[str]], begin: int, late: float
) -> Decision:
    """Windows from `begin` on, each of the first of `sets` that covers it, up to one that has to wait.

    A window waits while a set before that one may yet cover it. A modality that lacks a window before `late` is behind
    and is waited for no longer, until it has caught up.
    """
    ends = {
        name: grid.first(track.ends_before, track.buffer.newest_s - track.reach_s) for name, track in tracks.items()
    }
    nothing = np.empty(0, dtype=np.int64)
    if all(min(ends[name] for name in names) <= begin for names in sets):
        return Decision(stop=begin, windows=nothing, sets=nothing)
    waits = {
        name: max(ends[name], grid.first(track.goes_on, track.since_s - SLACK_S)) for name, track in tracks.items()
    }
    stop = max(begin, *waits.values())
    edges = _edges(grid, tracks, [begin, stop, *waits.values()], begin, stop)
    covers = {name: track.covers(grid.starts_s(edges)) for name, track in tracks.items()}
    awaits = {name: (waits[name] >= late) & (edges >= waits[name]) & ~covers[name] for name in tracks}
    chosen, has_to_wait, is_open = np.full(len(edges), -1), edges >= stop, edges >= stop
    for number, names in enumerate(sets):
        whole = np.all([covers[name] for name in names], axis=0)
        has_to_wait |= (chosen < 0) & ~whole & np.all([covers[name] | awaits[name] for name in names], axis=0)
        is_open |= np.all([covers[name] | (edges >= waits[name]) for name in names], axis=0)
        chosen[(chosen < 0) & whole] = number
    count = int(has_to_wait.argmax())
    # Behind the last that is given, what may yet be covered is not given up: who is ahead may have a clock that leapt.
    given = int(np.flatnonzero(chosen[:count] >= 0).max(initial=-1)) + 1
    count = given + int(is_open[given : count + 1].argmax())
    spans = [(number, edges[row], edges[row + 1]) for row, number in enumerate(chosen[:count].tolist()) if number >= 0]
    windows = [np.arange(first, end) for _, first, end in spans]
    return Decision(
        stop=int(edges[count]),
        windows=np.concatenate([nothing, *windows]),
        sets=np.repeat(np.array([number for number, _, _ in spans], dtype=np.int64), [len(each) for each in windows]),
    )


def _edges(grid: Grid, tracks: Mapping[str, Track], known: Sequence[float], begin: int, stop: float) -> Windows:
    """Windows at which it may change who covers what, ascending, from `begin` to `stop`; some at which nothing does."""
    found = [np.array(known)]
    for track in tracks.values():
        first_s, last_s = track.runs()
        for instants_s in (first_s - SLACK_S, last_s - track.reach_s):
            about = np.floor((instants_s - grid.origin_s) / grid.stride_s)
            # The quotient is rounded.
            found += [about, about + 1, about + 2]
    edges: Windows = distinct(np.clip(np.concatenate(found), begin, stop)).astype(np.int64)
    return edges


def distinct(values: Seconds) -> Seconds:
    """Each value once, ascending: as `np.unique`, which would bring all of numpy's masked arrays along."""
    ascending = np.sort(values)
    is_first = np.concatenate([np.ones(min(1, len(values)), dtype=np.bool_), ascending[1:] != ascending[:-1]])
    once: Seconds = ascending[is_first]
    return once
