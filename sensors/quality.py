"""How well windows were sensed: what lies between samples too far apart, at the ends of a range, or is a guess.

Shapes: N windows, T grid points, C channels, n samples of a stream; frames are (Y, X), each by itself. All of it is of
the samples around a window's own grid points and of no others, so that it does not depend on how a stream is cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt.modality import Modality
from sensors.source import Floats, Seconds, Values

# Between two samples further apart than this many periods one is missing.
GAP_PERIODS = 1.5
# A channel that moves by fewer steps of its sensor than this may well rest at its ends.
LEAST_STEPS = 8.0
# Values that are closer than this share of a period say nothing about how a signal bends.
CLOSEST = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How well one modality of one window was sensed; 0 in all is perfect.

    `gap_share`: of the grid points, those whose neighbours are further apart than `GAP_PERIODS` periods.
    `saturated_share`: of the values, those at an end of the modality's range, of a signal in its worst channel. Where
    no range is known: those that repeat the largest or smallest of their channel at once, a flat top or floor, as far
    as the channel moves by more than a few of its sensor's steps; 0 for frames.
    `resampling_error`: of a signal how far off its interpolated values are, root mean square, in deviations of the
    window; of frames how far from a grid point the frame is that stands for it, root mean square, in periods.
    """

    gap_share: float
    saturated_share: float
    resampling_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The worst that windows may be to be learned from, in any of their modalities; None is no limit."""

    gap_share: float | None = None
    saturated_share: float | None = None
    resampling_error: float | None = None

    def exceeded(self, quality: Mapping[str, Quality]) -> str | None:
        """What is wrong with a window of this quality, such as "acc: gaps"; None when nothing is."""
        for name in sorted(quality):
            each = quality[name]
            if self.gap_share is not None and each.gap_share > self.gap_share:
                return f"{name}: gaps"
            if self.saturated_share is not None and each.saturated_share > self.saturated_share:
                return f"{name}: saturated"
            if self.resampling_error is not None and each.resampling_error > self.resampling_error:
                return f"{name}: resampled badly"
        return None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Neighbours:
    """The samples around the grid points of windows, all (N, T): their rows, and how far they are from it in seconds.

    Where `same`, the grid point is the right one itself.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    behind_s: Seconds
    ahead_s: Seconds
    same: NDArray[np.bool_]

    @property
    def first(self) -> NDArray[np.int64]:
        """The first sample that each window needs, (N,); what lies before may be forgotten already."""
        earliest: NDArray[np.int64] = np.where(self.same[:, 0], self.right[:, 0], self.left[:, 0])
        return earliest

    @property
    def last(self) -> NDArray[np.int64]:
        """The last sample that each window needs, (N,)."""
        return self.right[:, -1]


def qualities(
    modality: Modality,
    around: Neighbours,
    t_s: Seconds,
    values: Floats,
    windows: Sequence[Values],
    range_: tuple[float, float] | None,
) -> list[Quality]:
    """The quality of each of N windows of T samples, of a signal (N, T, C), made of samples `t_s` (n,) and `values`."""
    span_s = around.behind_s + around.ahead_s
    gaps_N = (~around.same & (span_s > GAP_PERIODS / modality.rate_hz)).mean(axis=1)
    full_N = np.zeros(len(windows)) if range_ is None else np.array([_beyond(each, range_) for each in windows])
    if isinstance(windows, np.ndarray):
        if range_ is None:
            # What a sensor gives may be as large as a number can be; its differences are not then.
            with np.errstate(over="ignore"):
                full_N = _flat(windows, _steps(around, values))
        error_N = _interpolation(modality, around, t_s, values, windows)
    else:
        off_NT = np.where(around.same, 0.0, np.minimum(around.behind_s, around.ahead_s)) * modality.rate_hz
        error_N = np.sqrt((off_NT**2).mean(axis=1))
    return [
        Quality(gap_share=gaps, saturated_share=full, resampling_error=error)
        for gaps, full, error in zip(gaps_N.tolist(), full_N.tolist(), error_N.tolist(), strict=True)
    ]


def _beyond(window: Values, range_: tuple[float, float]) -> float:
    """The share of values at an end of the range, of a signal (T, C) in the worst channel."""
    low, high = np.float32(range_[0]), np.float32(range_[1])
    if isinstance(window, np.ndarray):
        return float(((window <= low) | (window >= high)).mean(axis=0).max())
    at_end = sum(int(np.count_nonzero((frame <= low) | (frame >= high))) for frame in window)
    return at_end / sum(frame.size for frame in window)


def _flat(windows_NTC: Floats, step_NC: Floats) -> NDArray[np.float64]:
    """The share of values in a flat top or floor (N,), of the worst channel."""
    top, floor = windows_NTC.max(axis=1, keepdims=True), windows_NTC.min(axis=1, keepdims=True)
    flat = np.zeros(windows_NTC.shape, dtype=np.bool_)
    for end in (top, floor):
        at_end = windows_NTC == end
        again = at_end[:, 1:] & at_end[:, :-1]
        flat[:, 1:] |= again
        flat[:, :-1] |= again
    moves_NC = (top - floor)[:, 0] >= LEAST_STEPS * step_NC
    share_NC = np.where(moves_NC, flat.mean(axis=1), 0.0)
    worst: NDArray[np.float64] = share_NC.max(axis=1)
    return worst


def _steps(around: Neighbours, values: Floats) -> Floats:
    """The smallest difference of two samples in a row (N, C) that is one; infinity where all are alike."""
    first, last = around.first, around.last
    begin = int(first.min())
    moves = np.abs(np.diff(values[begin : int(last.max()) + 1], axis=0))
    moves[moves == 0] = np.inf
    # One more row, so that a window's end is within the array, and windows without a difference have one.
    moves = np.concatenate([moves, np.full_like(values[:1], np.inf)])
    pairs = np.stack([first - begin, np.maximum(last - begin, first - begin + 1)], axis=1).ravel()
    smallest: Floats = np.minimum.reduceat(moves, np.minimum(pairs, len(moves) - 1))[::2]
    return smallest


def _interpolation(
    modality: Modality, around: Neighbours, t_s: Seconds, values: Floats, windows: Floats
) -> NDArray[np.float64]:
    """How far off linear interpolation is (N,), in deviations of each window.

    The error of interpolating f at t between t0 and t1 is (t - t0) (t - t1) f[t0, t1, t] (Newton; de Boor, A Practical
    Guide to Splines, 1978, chapter I). The divided difference at t is taken for that at the sample on either side,
    which leaving this sample out and interpolating it tells: the larger of both, as long as it is of the window's own
    samples. Where noise is, it is the noise that is estimated; a signal that moves faster than half the rate is not.
    """
    first, last = around.first[:, None], around.last[:, None]
    begin, end = int(first.min()), int(last.max()) + 1
    step_s = np.maximum(np.diff(t_s[begin:end]), CLOSEST / modality.rate_hz)[:, None]
    x = values[begin:end].astype(np.float64)
    missed = np.zeros_like(x)
    if len(x) > 2:
        share = step_s[:-1] / (step_s[:-1] + step_s[1:])
        missed[1:-1] = np.abs(x[1:-1] - (x[:-2] * (1 - share) + x[2:] * share)) / (step_s[:-1] * step_s[1:])
    bent = np.maximum(
        missed[np.maximum(around.left - begin, 0)] * (around.left > first)[..., None],
        missed[around.right - begin] * (around.right < last)[..., None],
    )
    off_NTC = np.where(around.same, 0.0, around.behind_s * around.ahead_s)[..., None] * bent
    # Sums along rows in memory come out the same however many windows are at hand.
    x_NCT = np.ascontiguousarray(windows.transpose(0, 2, 1), dtype=np.float64)
    x_NCT -= x_NCT.mean(axis=2, keepdims=True)
    spread_N, error_N = ((each.reshape(len(each), -1) ** 2).sum(axis=1) for each in (x_NCT, off_NTC))
    relative: NDArray[np.float64] = np.sqrt(
        np.divide(error_N, spread_N, out=np.zeros_like(error_N), where=spread_N > 0)
    )
    return relative
