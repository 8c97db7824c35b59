"""What a release shows in its trial: for how long it has worked, and what is wrong with it, if anything is. Pure.

Only time counts in which it gave windows their classes, a few seconds for each at most: a wearable that lies in a
drawer proves nothing, and one that is switched off goes on where it was.
"""

import math
from collections import deque

import numpy as np

from edge.updates.machine import Figures
from edge.updates.settings import TrialSettings
from mekt.messages import Unfit

# Time from one window, or one look at the sensors, to the next that counts at most.
STEP_S = 10.0
# Over so many windows latency and confidence are looked at, and not before there are as many.
WINDOWS = 64


class Trial:
    """One release's, from now on, against what the self-test measured. Times are monotonic seconds."""

    def __init__(self, figures: Figures, settings: TrialSettings) -> None:
        self._figures = figures
        self._settings = settings
        self._certain: deque[float] = deque(maxlen=WINDOWS)
        self._taken_ms: deque[float] = deque(maxlen=WINDOWS)
        self._saw_s: float | None = None
        self._sensed_s: float | None = None
        self._silent_s = 0.0
        self.ran_s = 0.0

    def saw(self, now_s: float, probability: float, latency_ms: float) -> Unfit:
        """A window was given a class of this probability, in this time: what is wrong, or ""."""
        if self._saw_s is not None:
            self.ran_s += min(max(0.0, now_s - self._saw_s), STEP_S)
        self._saw_s, self._silent_s = now_s, 0.0
        if not math.isfinite(probability):
            return "does-not-run"
        self._certain.append(probability)
        self._taken_ms.append(latency_ms)
        if len(self._certain) < WINDOWS:
            return ""
        confidence, latency_us = self._figures.confidence_percent, self._figures.latency_us
        if confidence is not None:
            least = self._settings.confidence_percent / 100 * confidence / 100
            if sum(self._certain) < least * WINDOWS:
                return "unsure"
        slowest_ms = self._settings.latency_ratio * (latency_us or 0) / 1000
        return "slow" if np.median(self._taken_ms) > max(self._settings.latency_ms, slowest_ms) else ""

    def sensed(self, now_s: float) -> Unfit:
        """Sensors gave samples: "silent" where they have for too long, and no window came of it."""
        if self._sensed_s is not None:
            self._silent_s += min(max(0.0, now_s - self._sensed_s), STEP_S)
        self._sensed_s = now_s
        return "silent" if self._silent_s > self._settings.silent_s else ""

    def taken(self) -> float:
        """The seconds that it has worked since this was asked last."""
        ran_s, self.ran_s = self.ran_s, 0.0
        return ran_s
