"""How one modality's samples come: how many a second, how evenly, what is missing, what they are. Pure.

Shapes: n samples of a block.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt.modality import Modality
from sensors.source import Block, Floats, Seconds

# What the figures are of: so many of the newest seconds, and as many samples at most.
SPAN_S = 5.0
MOST_SAMPLES = 100_000
# Samples further apart than this many periods have others missing between them.
MISSING_PERIODS = 1.5
# Of the plot: one value for each of so many equal spans of time.
PLOTTED = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of one modality in the newest seconds; `samples`, `missing` and `backward` are since the beginning.

    `rate_hz`: samples a second, 0 before there are two. `jitter_ms`: standard deviation of the time between samples.
    `gap_ms`: the longest time between two. `delay_ms`: how long after its time the newest sample was read. `low` and
    `high`: of all channels, in the modality's unit.
    """

    modality: str
    unit: str
    nominal_hz: float
    samples: int
    missing: int
    backward: int
    rate_hz: float
    jitter_ms: float
    gap_ms: float
    delay_ms: float
    low: float
    high: float


class Meter:
    """Counts and times the blocks of `modality`."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        self._samples = self._missing = self._backward = 0
        self._newest_s = -np.inf
        self._delay_s = 0.0
        # Time, and of frames their mean, of signals each channel, of the newest samples.
        self._recent: deque[tuple[float, NDArray[np.float32]]] = deque(maxlen=MOST_SAMPLES)

    def take(self, block: Block, now_s: float) -> None:
        """Count a block that was read at `now_s` of its source's clock."""
        if len(block.t_s) == 0:
            return
        newest_s = np.maximum.accumulate(np.concatenate([[self._newest_s], block.t_s]))
        steps_s = (block.t_s - newest_s[:-1])[np.isfinite(newest_s[:-1])]
        self._backward += int((steps_s <= 0).sum())
        periods = steps_s * self.modality.rate_hz
        self._missing += int(np.rint(periods[periods > MISSING_PERIODS] - 1).sum())
        self._samples += len(block.t_s)
        self._newest_s = float(newest_s[-1])
        self._delay_s = now_s - self._newest_s
        self._recent.extend(zip(block.t_s.tolist(), self._shown(block.values), strict=True))
        while len(self._recent) > 1 and self._recent[0][0] < self._newest_s - SPAN_S:
            self._recent.popleft()

    def gap(self) -> None:
        """The stream starts anew: what is before it is not missing."""
        self._newest_s = -np.inf

    def figures(self) -> Figures:
        """As they are now."""
        t_s, values = self._arrays()
        steps_s = np.diff(np.sort(t_s))
        span_s = float(steps_s.sum())
        return Figures(
            modality=self.modality.name,
            unit=self.modality.unit,
            nominal_hz=self.modality.rate_hz,
            samples=self._samples,
            missing=self._missing,
            backward=self._backward,
            rate_hz=len(steps_s) / span_s if span_s > 0 else 0.0,
            jitter_ms=1000 * float(steps_s.std()) if len(steps_s) else 0.0,
            gap_ms=1000 * float(steps_s.max()) if len(steps_s) else 0.0,
            delay_ms=1000 * self._delay_s,
            low=float(values.min()) if values.size else 0.0,
            high=float(values.max()) if values.size else 0.0,
        )

    def plotted(self, points: int = PLOTTED) -> Floats:
        """The newest seconds in equal spans of time, (points, channels); where there was no sample not a number."""
        t_s, values = self._arrays()
        plot = np.full((points, 1 if self.modality.is_frames else self.modality.channels), np.nan, np.float32)
        if len(t_s):
            place = np.floor((t_s - (t_s.max() - SPAN_S)) / SPAN_S * points).astype(int).clip(0, points - 1)
            plot[place] = values
        return plot

    def _arrays(self) -> tuple[Seconds, Floats]:
        t_s = np.array([each for each, _ in self._recent])
        values: Floats = np.array([each for _, each in self._recent], np.float32)
        return t_s, values

    def _shown(self, values: Floats) -> Floats:
        """(n, channels): of frames their mean."""
        if self.modality.is_frames:
            mean: Floats = values.reshape(len(values), -1).mean(axis=1, keepdims=True)
            return mean
        return values.reshape(len(values), -1)
