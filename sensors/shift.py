"""How much later one modality shows a movement than another does: a look at clocks that nothing else compares. Pure.

Two sensors of one body see it move at the same moments. Of each the activity is taken, the speed at which its values
change, on one grid of instants; the shift at which the two agree best, over minutes of movement, is how far their times
lie apart (by cross-correlation, as in Knapp and Carter, "The generalized correlation method for estimation of time
delay", IEEE Trans. ASSP 24(4), 1976, without their weights). It is not the clocks' alone: what falls is seen before it
is felt to stop. So it is shown to people, and corrects nothing. docs/lab.md has its errors on real recordings.

Shapes: n samples; L shifts, from the most negative to the most positive.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt.modality import Modality
from sensors.source import Block, Floats, Seconds

STEP_S = 0.02
# Shifts up to this are looked for.
MOST_S = 1.0
# Activities are compared in pieces so long; at a gap, in shorter ones too.
PIECE_S, SHORTEST_S = 5.0, 1.5
# What lies so long back counts half.
HALF_LIFE_S = 300.0
# Activities are smoothed over this span: cameras see no more.
SMOOTH_S = 0.18
# A shift is told when so many seconds were compared, when they agree so well at it, and by so much better than at all
# shifts further away from it than its peak is wide.
LEAST_S, LEAST_AGREEMENT, LEAST_LEAD, PEAK_S = 60.0, 0.35, 0.1, 0.4
# Samples of each that may wait for the other; beyond, the oldest are given up.
MOST_WAITING = 20_000

Reals = NDArray[np.float64]
_REACH = round(MOST_S / STEP_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """`later` shows movements `shift_s` after `earlier`; how well the two agree then, 1 at best, of so many seconds."""

    earlier: str
    later: str
    shift_s: float
    agreement: float
    seconds: float


class Shift:
    """Compares the movements that two modalities show. Its memory is bounded."""

    def __init__(self, one: Modality, other: Modality) -> None:
        self._activities = (_Activity(one), _Activity(other))
        # Over all pieces: of both together and of each alone, (L,).
        self._sums: Reals = np.zeros((3, 2 * _REACH + 1))
        self._seconds = 0.0

    def take(self, block: Block) -> None:
        """Take in a block of either; others are passed over."""
        for each in self._activities:
            if each.name == block.modality and len(block.t_s):
                if abs(block.t_s[0] - each.newest_s) > PIECE_S:
                    self.gap([each.name])
                each.take(block)
        self._compare(PIECE_S)

    def gap(self, modalities: Sequence[str]) -> None:
        """What comes next of one of these does not belong to what is there."""
        if any(each.name in modalities for each in self._activities):
            self._compare(SHORTEST_S)
            for each in self._activities:
                each.clear()

    def apart(self) -> Apart | None:
        """How far they are apart; None while too little has moved to tell."""
        both, one, other = self._sums
        agreement = both / np.sqrt(np.maximum(one * other, 1e-12))
        best = int(agreement.argmax())
        beside = np.abs(np.arange(len(agreement)) - best) * STEP_S > PEAK_S
        lead = agreement[best] - agreement[beside].max()
        if self._seconds < LEAST_S or agreement[best] < LEAST_AGREEMENT or lead < LEAST_LEAD:
            return None
        shift_s = (best - _REACH) * STEP_S
        names = [each.name for each in self._activities]
        earlier, later = names if shift_s >= 0 else reversed(names)
        return Apart(
            earlier=earlier,
            later=later,
            shift_s=abs(shift_s),
            agreement=float(agreement[best]),
            seconds=self._seconds,
        )

    def _compare(self, least_s: float) -> None:
        """Compare what both have, when that is long enough."""
        one, other = self._activities
        begin_s, end_s = max(one.begin_s, other.begin_s), min(one.end_s, other.end_s)
        if not end_s - begin_s >= least_s:
            return
        instants_s = np.arange(begin_s, min(end_s, begin_s + 2 * PIECE_S), STEP_S)
        x, y = one.at(instants_s), other.at(instants_s)
        self._sums *= 0.5 ** (len(x) * STEP_S / HALF_LIFE_S)
        for row, shift in enumerate(range(-_REACH, _REACH + 1)):
            a, b = x[max(0, -shift) : len(x) - max(0, shift)], y[max(0, shift) : len(y) + min(0, shift)]
            self._sums[:, row] += a @ b, a @ a, b @ b
        self._seconds += len(x) * STEP_S
        for each in self._activities:
            each.forget_before(end_s)


class _Activity:
    """How fast one modality's values change, at the instants between its samples."""

    def __init__(self, modality: Modality) -> None:
        self.name = modality.name
        self.clear()

    @property
    def begin_s(self) -> float:
        """The first instant; infinity when there is none."""
        return float(self._t_s[0]) if len(self._t_s) else np.inf

    @property
    def end_s(self) -> float:
        """The last instant; minus infinity when there is none."""
        return float(self._t_s[-1]) if len(self._t_s) else -np.inf

    @property
    def newest_s(self) -> float:
        """When the newest sample was taken; not a number when there is none."""
        return np.nan if self._last is None else self._last[0]

    def clear(self) -> None:
        """Forget all samples."""
        self._t_s: Seconds = np.empty(0)
        self._speed: Reals = np.empty(0)
        self._last: tuple[float, Floats] | None = None

    def take(self, block: Block) -> None:
        """Take in samples; those that are not later than one before them are passed over."""
        t_s, values = block.t_s, block.values
        if self._last is not None:
            t_s, values = np.concatenate([[self._last[0]], t_s]), np.concatenate([self._last[1], values])
        sound = np.isfinite(t_s) & np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        t_s, values = t_s[sound], values[sound]
        later = np.concatenate([[True], t_s[1:] > np.maximum.accumulate(t_s)[:-1]])[: len(t_s)]
        t_s, values = t_s[later], values[later]
        if len(t_s) == 0:
            return
        self._last = (float(t_s[-1]), values[-1:])
        with np.errstate(over="ignore"):
            moved = np.abs(np.diff(values, axis=0)).mean(axis=tuple(range(1, values.ndim)), dtype=np.float64)
            speed, between_s = np.sqrt(moved / np.diff(t_s)), (t_s[1:] + t_s[:-1]) / 2
        sound = np.isfinite(speed) & np.isfinite(between_s)
        self._t_s = np.concatenate([self._t_s, between_s[sound]])[-MOST_WAITING:]
        self._speed = np.concatenate([self._speed, speed[sound]])[-MOST_WAITING:]

    def at(self, instants_s: Seconds) -> Reals:
        """The activity at these instants (n,), smoothed, without its mean."""
        taps = np.hanning(round(SMOOTH_S / STEP_S) + 2)
        # Ends that fall to 0 in both would look like a movement at the same moment.
        speed = np.pad(np.interp(instants_s, self._t_s, self._speed), len(taps) // 2, mode="edge")
        smooth: Reals = np.convolve(speed, taps / taps.sum(), "valid")
        centred: Reals = smooth - smooth.mean()
        return centred

    def forget_before(self, instant_s: float) -> None:
        """Drop what lies before, but for one."""
        kept = max(0, int(np.searchsorted(self._t_s, instant_s)) - 1)
        self._t_s, self._speed = self._t_s[kept:], self._speed[kept:]
