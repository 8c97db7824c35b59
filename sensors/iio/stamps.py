"""When samples of an IIO buffer were taken, in seconds of CLOCK_MONOTONIC.

Shapes: n samples.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.source import Seconds

MONOTONIC = "monotonic"
# The names of `current_timestamp_clock` (Documentation/ABI/testing/sysfs-bus-iio) for clocks that can be read.
CLOCKS = {
    "realtime": time.CLOCK_REALTIME,
    "realtime_coarse": time.CLOCK_REALTIME,
    MONOTONIC: time.CLOCK_MONOTONIC,
    "monotonic_coarse": time.CLOCK_MONOTONIC,
    "monotonic_raw": time.CLOCK_MONOTONIC_RAW,
    "boottime": time.CLOCK_BOOTTIME,
    "tai": time.CLOCK_TAI,
}
# What the kernel uses where it does not say (before 4.5).
DEFAULT_CLOCK = "realtime"
# A clock that moved so far against the monotonic one since it was last looked at was set.
SET_S = 0.01
# A stamp this much later than now, or than the device can hold earlier, is none.
AHEAD_S, BEHIND_S = 1.0, 5.0


class Stamps:
    """Turns a device's time stamps (ns of its clock) into monotonic time.

    The distance between the clocks is measured with each batch: they drift apart, and a wall clock may be set.
    """

    def __init__(self, clock: str, seconds: Callable[[int], float] = time.clock_gettime) -> None:
        """`clock` is one of CLOCKS; `seconds` reads it."""
        self._id, self._seconds = CLOCKS[clock], seconds
        self._offset_s = self._measured()

    def times(self, stamps_ns: NDArray[Any]) -> Seconds | None:
        """Monotonic times (n,); None when the clock was set since the last call, so that nobody knows."""
        before_s, self._offset_s = self._offset_s, self._measured()
        if abs(self._offset_s - before_s) > SET_S:
            return None
        return stamps_ns.astype(np.float64) * 1e-9 + self._offset_s

    def _measured(self) -> float:
        """What is to be added; of three tries that with which the least time was lost."""
        if self._id == time.CLOCK_MONOTONIC:
            return 0.0
        tries = []
        for _ in range(3):
            first_s, other_s, last_s = (
                self._seconds(each) for each in (time.CLOCK_MONOTONIC, self._id, time.CLOCK_MONOTONIC)
            )
            tries.append((last_s - first_s, (first_s + last_s) / 2 - other_s))
        return min(tries)[1]


class Arrivals:
    """Times for samples that have none of their own: evenly between one arrival and the next."""

    def __init__(self, rate_hz: float) -> None:
        self._period_s = 1 / rate_hz
        self._last_s = -np.inf

    def times(self, count: int, now_s: float) -> Seconds:
        """Rising times (count,), the last of them now. After a pause they are a period apart."""
        span_s = count * self._period_s
        passed_s = now_s - self._last_s
        # Some samples late is how they come; much more means that some are missing.
        step_s = passed_s / count if 0 < passed_s <= 2 * span_s + 0.1 else self._period_s
        self._last_s = now_s
        times: Seconds = now_s - step_s * np.arange(count - 1, -1, -1, dtype=np.float64)
        return times


def plausible(t_s: Seconds, now_s: float, held_s: float) -> NDArray[np.bool_]:
    """Which times (n,) a sample can have that is read now from a buffer of `held_s` seconds."""
    return (t_s > now_s - held_s - BEHIND_S) & (t_s < now_s + AHEAD_S)
