"""The newest samples of one stream, at a cost per sample that does not depend on how many are kept."""

import numpy as np

from sensors.source import Floats, Seconds


class SampleBuffer:
    """Samples in ascending order of time: appended at one end, forgotten at the other."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape`: that of one sample."""
        self._t_s = np.empty(0)
        self._values = np.empty((0, *shape), dtype=np.float32)
        self._begin = 0
        self._end = 0

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def t_s(self) -> Seconds:
        """Times (n,); a view until the next change."""
        return self._t_s[self._begin : self._end]

    @property
    def values(self) -> Floats:
        """Values (n, *shape); a view until the next change."""
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
        self._values[self._end : self._end + count] = values
        self._end += count

    def forget_before(self, instant_s: float) -> None:
        """Drop what lies before `instant_s`, but for the one sample that interpolation there needs."""
        last = int(np.searchsorted(self.t_s, instant_s, side="right")) - 1
        self._begin += max(0, last)

    def keep_newest(self, count: int) -> None:
        """Drop all but the newest `count` samples."""
        self._begin = max(self._begin, self._end - count)

    def _make_room(self, count: int) -> None:
        """Move what is there to the front, of another array where half of it would be full or nearly all empty."""
        kept, size = len(self), len(self._t_s)
        t_s, values = self._t_s, self._values
        if kept + count > size // 2 or size > 8 * (kept + count):
            size = 2 * (kept + count)
            t_s, values = np.empty(size), np.empty((size, *values.shape[1:]), dtype=np.float32)
        # Within one array the two places do not overlap: what is there lies in the second half.
        t_s[:kept], values[:kept] = self.t_s, self.values
        self._t_s, self._values = t_s, values
        self._begin, self._end = 0, kept
