"""When a chip took its samples, on this machine's clock.

A chip samples by a clock of its own, which is off by some percent and wanders with its temperature, and tells no times.
What is known at each reading is that so many more samples were taken, and that the newest of them was taken within some
interval: between the instant one period before the FIFO was asked how much it holds, and its answer. Two numbers follow
from these: when the newest sample was taken, and the chip's period. They are tracked by a Kalman filter with a period
that slowly wanders, and held within what is certain. Pure.
"""

import math

import numpy as np

from sensors.source import Seconds

# A period is believed to be off by about this share, and never by more than the second one.
LIKELY_ERROR, LARGEST_ERROR = 0.04, 0.15
# How far it wanders, as a share, in the square root of a second: 0.04 percent in a minute.
WANDER = 5e-5
# What separates two instants at which a sample could have been taken, beyond what the interval says.
JITTER_PERIODS = 0.02
# A prediction further from the interval than this was made from a wrong number of samples.
BREAK_PERIODS, BREAK_S = 3.0, 0.02
# The distance of two times that are told, in periods.
LEAST_STEP, LARGEST_STEP = 0.5, 1.5


class ChipClock:
    """Times of samples out of counts and intervals; they only rise."""

    def __init__(self, rate_hz: float) -> None:
        """`rate_hz`: nominal."""
        self._nominal_s = 1 / rate_hz
        self._period_s = self._nominal_s
        # Of the instant of the newest sample and of the period: variances, and how they vary together.
        self._newest_s: float | None = None
        self._newest_var, self._both_var, self._period_var = 0.0, 0.0, (LIKELY_ERROR * self._nominal_s) ** 2
        self._told_s = -math.inf

    @property
    def period_s(self) -> float:
        """The chip's period, as far as it is known."""
        return self._period_s

    def restart(self) -> None:
        """Samples were lost, nobody knows how many: the next ones begin anew. What is known of the period stays."""
        self._newest_s, self._both_var = None, 0.0

    def due_s(self, count: int) -> float | None:
        """When the sample comes that is so many behind the newest one; None before there was any."""
        return None if self._newest_s is None else self._newest_s + count * self._period_s

    def passed(self, after_s: float, until_s: float) -> int:
        """How many samples were taken behind the newest one that is known, up to one that was within the interval.

        One where that can be, as a chip that is looked at often enough loses none.
        """
        if self._newest_s is None or self._newest_s + self._period_s > after_s - self._doubt_s(1):
            return 1
        return max(1, round(((after_s + until_s) / 2 - self._newest_s) / self._period_s))

    def fits(self, count: int, after_s: float, until_s: float) -> bool:
        """Whether `count` more samples, the newest within the interval, can be all that were taken."""
        if self._newest_s is None:
            return True
        expected_s = self._newest_s + count * self._period_s
        slack_s = max(BREAK_PERIODS * self._nominal_s, BREAK_S) + self._doubt_s(count)
        return after_s - slack_s < expected_s < until_s + slack_s

    def times(self, count: int, after_s: float, until_s: float) -> Seconds:
        """Times (count,) of the next samples, the newest of which was taken after `after_s` and not after `until_s`."""
        self._track(count, after_s, until_s)
        assert self._newest_s is not None
        continues = (
            math.isfinite(self._told_s) and self._newest_s - self._told_s < LARGEST_STEP * count * self._period_s
        )
        begin_s = self._told_s if continues else max(self._told_s, self._newest_s - count * self._period_s)
        step_s = (self._newest_s - begin_s) / count
        step_s = min(max(step_s, LEAST_STEP * self._period_s), LARGEST_STEP * self._period_s)
        times_s: Seconds = begin_s + step_s * np.arange(1, count + 1, dtype=np.float64)
        self._told_s = float(times_s[-1])
        return times_s

    def _doubt_s(self, count: int) -> float:
        """How far off the instant may be that is foretold for the sample that is so many behind the newest one."""
        variance = self._newest_var + 2 * count * self._both_var + count**2 * self._period_var
        return 3 * math.sqrt(max(0.0, variance)) + 5 * JITTER_PERIODS * self._nominal_s

    def _track(self, count: int, after_s: float, until_s: float) -> None:
        middle_s, width_s = (after_s + until_s) / 2, until_s - after_s
        # All instants of the interval are as likely.
        noise = width_s**2 / 12 + (JITTER_PERIODS * self._nominal_s) ** 2
        if self._newest_s is None:
            self._newest_s, self._newest_var = middle_s, noise
            return
        self._newest_s += count * self._period_s
        self._newest_var += 2 * count * self._both_var + count**2 * self._period_var
        self._both_var += count * self._period_var
        self._period_var += (WANDER * self._nominal_s) ** 2 * count * self._period_s
        surprise_s, doubt = middle_s - self._newest_s, self._newest_var + noise
        gain, period_gain = self._newest_var / doubt, self._both_var / doubt
        self._newest_s += gain * surprise_s
        self._period_s += period_gain * surprise_s
        self._period_var -= period_gain * self._both_var
        self._both_var *= 1 - gain
        self._newest_var *= 1 - gain
        self._newest_s = min(max(self._newest_s, after_s), until_s)
        self._period_s = min(
            max(self._period_s, (1 - LARGEST_ERROR) * self._nominal_s), (1 + LARGEST_ERROR) * self._nominal_s
        )
