"""The newest samples of one stream, at a cost per sample that does not depend on how many are kept."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.source import Floats, Seconds


class SampleBuffer:
    """Samples in ascending order of time: appended at one end, forgotten at the other.

    Each frame is an array by itself that nobody changes any more: windows share frames, and none of them is moved.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape`: that of one sample."""
        self._are_frames = len(shape) == 2
        self._t_s = np.empty(0)
        self._values: NDArray[Any] = np.empty(0, object) if self._are_frames else np.empty((0, *shape), np.float32)
        self._begin = 0
        self._end = 0

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def t_s(self) -> Seconds:
        """Times (n,); a view until the next change."""
        return self._t_s[self._begin : self._end]

    @property
    def values(self) -> NDArray[Any]:
        """Values (n, C), of frames (n,) arrays (Y, X); a view until the next change."""
        return self._values[self._begin : self._end]

    @property
    def oldest_s(self) -> float:
        """The first time; infinity when empty."""
        return float(self._t_s[self._begin]) if len(self) else float("inf")

    @property
    def newest_s(self) -> float:
        """The last time; minus infinity when empty."""
        return float(self._t_s[self._end - 1]) if len(self) else float("-inf")

    def append(self, t_s: Seconds, values: Floats) -> None:
        """Add samples, all of them later than what is there."""
        count = len(t_s)
        if self._end + count > len(self._t_s):
            self._make_room(count)
        self._t_s[self._end : self._end + count] = t_s
        if self._are_frames:
            for row, frame in enumerate(values, self._end):
                self._values[row] = np.array(frame, dtype=np.float32, order="C")
        else:
            self._values[self._end : self._end + count] = values
        self._end += count

    def forget_before(self, instant_s: float) -> None:
        """Drop what lies before `instant_s`, but for the one sample that interpolation there needs."""
        last = int(np.searchsorted(self.t_s, instant_s, side="right")) - 1
        self._forget(max(0, last))

    def keep_newest(self, count: int) -> None:
        """Drop all but the newest `count` samples."""
        self._forget(max(0, len(self) - count))

    def _forget(self, count: int) -> None:
        if self._are_frames:
            self._values[self._begin : self._begin + count] = None
        self._begin += count

    def _make_room(self, count: int) -> None:
        """Move what is there to the front of other arrays, half of which stay empty."""
        kept = len(self)
        size = 2 * (kept + count)
        t_s, values = np.empty(size), np.empty((size, *self._values.shape[1:]), dtype=self._values.dtype)
        t_s[:kept], values[:kept] = self.t_s, self.values
        self._t_s, self._values = t_s, values
        self._begin, self._end = 0, kept
