"""One modality's way into windows: which samples are kept, where the holes are, what lies at the instants of a grid."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.buffer import SampleBuffer
from sensors.quality import Neighbours, Quality, qualities
from sensors.source import Block, Floats, Seconds, Values

# Between two samples there is a hole when they are further apart than this many periods and this many seconds.
HOLE_PERIODS = 2.5
HOLE_S = 0.25
# How far one modality may lag behind another before windows are given up for lack of it; bounds the memory.
LAG_S = 30.0
# A time stamp this far behind the newest means that the clock was set back, not that samples were swapped.
CLOCK_SET_BACK_S = 5.0
# Grid points and samples this close together are the same instant: time stamps are rounded.
SLACK_S = 2e-6
# Beyond any clock (30,000 years); such a time is noise.
LATEST_S = 1e12
# Beyond anything sensed in any unit; such a value is noise too, of which models would make infinity.
LARGEST_VALUE = 1e15


class Track:
    """The samples of one modality that windows still need, and the windows' grid in this modality's rate.

    `counts` has what became of every sample that was delivered: "kept", "not a number", "not later" than one before it;
    of those that were kept, how many "lagged" so far that they were given up before a window could use them.
    """

    def __init__(
        self, modality: Modality, samples: int, lag_s: float, range_: tuple[float, float] | None = None
    ) -> None:
        self.modality = modality
        self.counts: Counter[str] = Counter()
        self._range = range_
        self.grid_s: Seconds = np.arange(samples) / modality.rate_hz
        # From here on a sample serves a grid point as its right neighbour; the last says how far a window reaches.
        self.reaches_s = self.grid_s - SLACK_S
        self.reach_s = float(self.reaches_s[-1])
        self.hole_s = max(HOLE_PERIODS / modality.rate_hz, HOLE_S)
        self.lag_s = lag_s
        # No honest sensor is this much faster than its nominal rate for so long.
        self.most_samples = int(16 * modality.rate_hz * lag_s) + 16
        self.clear()

    def checked(self, block: Block) -> tuple[Seconds, Floats]:
        """The block's samples that can be used: those whose time and values are numbers.

        Raises:
            SensorError: when the samples do not have the modality's shape.
        """
        if block.values.shape[1:] != self.modality.shape:
            raise SensorError(
                f"{block.modality}: samples have shape {block.values.shape[1:]}, expected {self.modality.shape};"
                " give the sensor and the plan the same shape",
                catalogue.MODALITY_UNLIKE,
            )
        sound = np.abs(block.t_s) < LATEST_S
        sound &= (np.abs(block.values) < LARGEST_VALUE).all(axis=tuple(range(1, block.values.ndim)))
        if sound.all():
            return block.t_s, block.values
        self.counts["not a number"] += int(len(sound) - sound.sum())
        return block.t_s[sound], block.values[sound]

    def append(self, t_s: Seconds, values: Floats) -> int:
        """Keep the samples that are later than all before them, and say how many rows are used up.

        Fewer than there are when the clock is set back at the next one.
        """
        before_s = self.buffer.newest_s
        newest_s = np.maximum.accumulate(np.concatenate([[before_s], t_s]))[:-1]
        back = np.flatnonzero(t_s < newest_s - CLOCK_SET_BACK_S)
        used = int(back[0]) if len(back) else len(t_s)
        later = t_s[:used] > newest_s[:used]
        # What lags too far behind goes before the block comes in, so that a block of any length is kept whole.
        there = len(self.buffer)
        self.buffer.keep_newest(self.most_samples)
        self.buffer.forget_before(before_s - self.lag_s)
        kept = int(later.sum())
        self.counts["lagged"] += there - len(self.buffer)
        self.counts["kept"] += kept
        t_s, values = t_s[:used], values[:used]
        if kept < used:
            self.counts["not later"] += used - kept
            t_s, values = t_s[later], values[later]
        if kept:
            self._note_breaks(before_s, t_s)
            self.buffer.append(t_s, values)
        return used

    def clear(self) -> None:
        """Forget all samples."""
        self.buffer = SampleBuffer(self.modality.shape)
        # Of samples before which the stream began anew, the instants.
        self._breaks: list[float] = []
        # A window that starts before this is not covered by samples that are yet to come.
        self.since_s = float("-inf")
        self._is_anew = False

    def restart(self) -> None:
        """What comes next does not belong to what is there."""
        self._is_anew = True
        self.since_s = float(np.nextafter(self.buffer.newest_s, np.inf)) if len(self.buffer) else float("-inf")

    @property
    def is_anew(self) -> bool:
        """Nothing has come yet that belongs to what comes next."""
        return self._is_anew or len(self.buffer) == 0

    def _note_breaks(self, before_s: float, t_s: Seconds) -> None:
        apart = np.diff(t_s, prepend=before_s) > self.hole_s
        if self._is_anew and len(self.buffer):
            apart[0] = True
            oldest_s = self.buffer.oldest_s
            self._breaks = [*(each for each in self._breaks if each > oldest_s), float(t_s[0])]
        self._is_anew = False
        begins = np.flatnonzero(apart)
        if len(begins):
            self.since_s = float(t_s[begins[-1]])

    def ends_before(self, start_s: float) -> bool:
        """The samples do not reach to the end of a window that starts there."""
        return start_s + self.reach_s > self.buffer.newest_s

    def goes_on(self, start_s: float) -> bool:
        """A window that starts there lies in the last stretch or behind it: what it lacks may yet come."""
        return start_s + SLACK_S >= self.since_s

    def runs(self) -> tuple[Seconds, Seconds]:
        """First and last instants (r,) of the stretches without a hole that are long enough for a window."""
        t_s = self.buffer.t_s
        if len(t_s) == 0:
            return t_s, t_s
        apart = np.diff(t_s) > self.hole_s
        breaks = np.searchsorted(t_s, self._breaks) - 1
        apart[breaks[breaks >= 0]] = True
        ends = np.flatnonzero(apart)
        first_s, last_s = t_s[np.concatenate([[0], ends + 1])], t_s[np.concatenate([ends, [len(t_s) - 1]])]
        long = last_s - first_s >= self.reach_s - 2 * SLACK_S
        return first_s[long], last_s[long]

    def covers(self, starts_s: Seconds) -> NDArray[np.bool_]:
        """For each window (N,): all of its grid points lie in one stretch without a hole."""
        first_s, last_s = self.runs()
        if len(first_s) == 0:
            return np.zeros(len(starts_s), dtype=np.bool_)
        run = np.searchsorted(first_s, starts_s + SLACK_S, side="right") - 1
        return (run >= 0) & (starts_s + self.reach_s <= last_s[run])

    def resample(self, starts_s: Seconds, *, rated: bool = True) -> tuple[Sequence[Values], list[Quality]]:
        """N windows of T samples, signals linearly between their neighbours, of frames the nearest.

        And when they are to be `rated`, how good each is, which takes longer than to make it.
        """
        t_s, values = self.buffer.t_s, self.buffer.values
        around = self._neighbours(starts_s)
        left, right, same = around.left, around.right, around.same
        windows: Sequence[Values]
        if self.modality.is_frames:
            windows = values[np.where(same | (around.ahead_s < around.behind_s), right, left)].tolist()
        else:
            span_s = np.where(same, 1.0, around.ahead_s + around.behind_s)
            share = np.where(same, 1.0, around.behind_s / span_s)[..., None]
            windows = (values[left] * (1 - share) + values[right] * share).astype(np.float32)
        if not rated:
            return windows, []
        return windows, qualities(self.modality, around, t_s, values, windows, self._range)

    def _neighbours(self, starts_s: Seconds) -> Neighbours:
        t_s = self.buffer.t_s
        grid_s = starts_s[:, None] + self.grid_s
        right = np.searchsorted(t_s, starts_s[:, None] + self.reaches_s)
        left = np.maximum(right - 1, 0)
        ahead_s = t_s[right] - grid_s
        return Neighbours(left=left, right=right, behind_s=grid_s - t_s[left], ahead_s=ahead_s, same=ahead_s <= SLACK_S)
