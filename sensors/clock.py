"""A foreign clock in our time: its offset and drift, told from when its samples arrive. Pure; its memory is bounded.

A sensor with a clock of its own says when a sample was taken, f, and we see when it arrives, a, on CLOCK_MONOTONIC.
Arrivals come late by a delay that varies and is never below that of the fastest: a = offset + (1 + drift) * f + delay.
So in the plane of x = f and y = a - f the truth is a straight line below all points, and the points that came fastest
lie on it. Of all lines with a possible drift that lie below all points of the last SPAN_S, the one that is highest in
the middle is taken, as Moon, Skelly and Towsley do ("Estimation and removal of clock skew from network delay
measurements", INFOCOM 1999, section IV), but for the middle instead of the mean: that gives a bound.

What cannot be known is the delay of the fastest: placed times are late by it, all alike.

Bound: let |drift| <= DRIFT, and let every second of the foreign clock hold an arrival that is at most `e` slower than
the fastest. Then from the third second on every placed time is within e + BOUND_S of the truth (which here includes the
fastest's delay), once what came before the third second no longer holds the times up: they fall back at most half a
second each second, so that they never go backwards. It follows from three facts: the true line is one of those that
may be taken, so ours is not below it in the middle; ours is not above the true one by more than e + 2 DRIFT BUCKET_S at
either end; and beyond its newest point it is at most a bucket's length extended.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sensors.source import Seconds

# Crystals are off by up to 100 ppm, RC oscillators of cheap boards by more; beyond this it is another rate.
DRIFT = 500e-6
# Of each bucket the fastest arrival is kept, and as many buckets as make the span.
BUCKET_S, BUCKETS = 1.0, 256
SPAN_S = BUCKET_S * BUCKETS
BOUND_S = 6 * DRIFT * BUCKET_S
# A foreign time this far behind the newest means that the clock was set back or began anew.
BACK_S = 0.1
# Arrivals may come this much too early, or too late for LATE_S and LATE_COUNT times in a row, before the clock is
# taken for set: forward in the first case, back without having been seen to go backwards in the second.
STEP_S = 1.0
LATE_S, LATE_COUNT = 10.0, 5
# So often a clock may be set within one batch; what comes after that is no clock's.
MOST_PIECES = 8
# While placed times are ahead of the line, time goes on at this speed until the line has caught up.
SLOWEST = 0.5

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Placed:
    """Times (n,) on our clock; with `anew` nothing before belongs to what follows."""

    t_s: Seconds
    anew: bool


class ForeignClock:
    """Where one foreign clock stands in our time. `wraps_s`: the span after which its counter begins at 0 again."""

    def __init__(self, wraps_s: float | None = None) -> None:
        self._wraps_s = wraps_s
        # The last foreign time as it came, and without the counter's leaps back.
        self._counted: Point | None = None
        # Where x and y are 0, as foreign time and as ours; None before the first arrival.
        self._origin: Point | None = None
        self._buckets: list[Point] = []
        self._newest = -math.inf
        self._drift = self._height = 0.0
        self._late_since_s: float | None = None
        self._late_count = 0
        # The last placed sample as foreign time and ours.
        self._last: Point | None = None

    @property
    def drift(self) -> float:
        """How much faster than ours the foreign clock's seconds pass on ours: 1e-6 is 1 ppm."""
        return self._drift

    def placed(self, foreign_s: Seconds, arrival_s: float) -> list[Placed]:
        """When the samples with these foreign times (n,), all finite, were taken; they arrived together at `arrival_s`.

        In pieces that together are as long as `foreign_s`, or shorter when they would be more than MOST_PIECES: a new
        one begins where the foreign clock was set.
        """
        pieces: list[Placed] = []
        counted_s = unwrapped(foreign_s, self._wraps_s, self._counted)
        if len(foreign_s):
            self._counted = (float(foreign_s[-1]), float(counted_s[-1]))
        for run_s in itertools.islice(_runs(counted_s), MOST_PIECES):
            known = self._origin is not None
            anew = self._take(float(run_s.max()), arrival_s)
            pieces.append(Placed(t_s=self._place(run_s), anew=anew and known))
        return pieces

    def _take(self, foreign_s: float, arrival_s: float) -> bool:
        """Learn from an arrival; whether the clock was set, and all that was known of its offset is forgotten."""
        if self._origin is None or self._is_set(foreign_s, arrival_s):
            self._origin, self._last = (foreign_s, arrival_s), None
            self._buckets, self._newest = [(0.0, 0.0)], 0.0
            self._late_since_s, self._late_count = None, 0
            self._height = 0.0
            return True
        x, y = self._point(foreign_s, arrival_s)
        if x > self._newest:
            self._newest = x
            self._keep((x, y))
        return False

    def _is_set(self, foreign_s: float, arrival_s: float) -> bool:
        x, y = self._point(foreign_s, arrival_s)
        if x < self._newest - BACK_S:
            return True
        # After a long silence the drift has had time.
        slack_s = STEP_S + 2 * DRIFT * max(0.0, x - self._newest)
        late_s = y - self._line(x)
        if late_s < -slack_s:
            return True
        if late_s <= slack_s:
            self._late_since_s, self._late_count = None, 0
            return False
        if self._late_since_s is None:
            self._late_since_s = arrival_s
        self._late_count += 1
        return self._late_count >= LATE_COUNT and arrival_s - self._late_since_s >= LATE_S

    def _point(self, foreign_s: float, arrival_s: float) -> Point:
        assert self._origin is not None
        x = foreign_s - self._origin[0]
        return x, arrival_s - self._origin[1] - x

    def _line(self, x: float) -> float:
        return self._height + self._drift * x

    def _keep(self, point: Point) -> None:
        buckets, (x, y) = self._buckets, point
        old_x, old_y = buckets[-1]
        if x // BUCKET_S == old_x // BUCKET_S:
            if y - self._drift * x >= old_y - self._drift * old_x:
                return
            buckets[-1] = point
        else:
            buckets.append(point)
        oldest = next(index for index, each in enumerate(buckets) if each[0] >= x - SPAN_S)
        del buckets[: max(oldest, len(buckets) - BUCKETS)]
        self._drift, self._height = _line_below(buckets, self._drift)

    def _place(self, foreign_s: Seconds) -> Seconds:
        assert self._origin is not None
        x = foreign_s - self._origin[0]
        t_s: Seconds = self._origin[1] + x + self._height + self._drift * x
        if self._last is not None:
            last_f_s, last_t_s = self._last
            ahead = foreign_s > last_f_s
            t_s[ahead] = np.maximum(t_s[ahead], last_t_s + SLOWEST * (foreign_s[ahead] - last_f_s))
        newest = int(foreign_s.argmax())
        if self._last is None or foreign_s[newest] > self._last[0]:
            self._last = (float(foreign_s[newest]), float(t_s[newest]))
        return t_s


def unwrapped(foreign_s: Seconds, wraps_s: float | None, before: Point | None = None) -> Seconds:
    """The times (n,) of a counter that begins at 0 again after `wraps_s`, as if it went on; as they are without one.

    `before` is the time that came before these, as it came and as it was given. Each step is taken for the smaller of
    the two that it may be: forward, or back.
    """
    if wraps_s is None or len(foreign_s) == 0:
        return foreign_s
    first_s = float(foreign_s[0])
    came_s, given_s = (first_s, first_s) if before is None else before
    steps_s = np.diff(np.concatenate([[came_s], foreign_s]))
    on_s: Seconds = given_s + np.cumsum((steps_s + wraps_s / 2) % wraps_s - wraps_s / 2)
    return on_s


def spread(count: int, rate_hz: float, arrival_s: float, before_s: float) -> Seconds:
    """Times (count,) for samples that came together at `arrival_s` and have no times of their own.

    The last was taken when it came, the others at the nominal rate before it; closer together where that would be
    before `before_s`, the last one's time of those that came before.
    """
    period_s = 1 / rate_hz
    if arrival_s > before_s and before_s > arrival_s - count * period_s:
        period_s = (arrival_s - before_s) / count
    t_s: Seconds = arrival_s - period_s * np.arange(count - 1, -1, -1, dtype=np.float64)
    return t_s


def _runs(foreign_s: Seconds) -> Iterator[Seconds]:
    """The times cut where they go back by more than samples that were swapped do."""
    while len(foreign_s):
        cuts = np.flatnonzero(foreign_s[1:] < np.maximum.accumulate(foreign_s)[:-1] - BACK_S)
        end = int(cuts[0]) + 1 if len(cuts) else len(foreign_s)
        yield foreign_s[:end]
        foreign_s = foreign_s[end:]


def _line_below(points: Sequence[Point], drift: float) -> Point:
    """Slope and height at 0 of the line below all points, of a slope within DRIFT, that is highest in their middle.

    Of a single point: the line through it with the slope `drift`.
    """
    if len(points) > 1:
        middle = (points[0][0] + points[-1][0]) / 2
        hull = _lower_hull(points)
        right = next(index for index in range(1, len(hull)) if hull[index][0] >= middle)
        (x, y), (next_x, next_y) = hull[right - 1], hull[right]
        drift = min(DRIFT, max(-DRIFT, (next_y - y) / (next_x - x)))
    return drift, min(y - drift * x for x, y in points)


def _lower_hull(points: Sequence[Point]) -> list[Point]:
    """The corners of the convex hull's lower side, of points in ascending order of x."""
    hull: list[Point] = []
    for x, y in points:
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2], hull[-1]
            if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                break
            hull.pop()
        hull.append((x, y))
    return hull
