"""Running statistics of a stream and the scaling that they give: never a look into the future.

Shapes: n samples, C channels. All pixels of a frame are one channel. 0 of a depth camera is a value as any other.
"""

import numpy as np
from numpy.typing import NDArray

from mekt.modality import Modality, Scaling
from sensors.source import Floats

# A channel that never moves is not blown up by more than this; it is below the noise of every sensor in use.
SMALLEST_STD = 1e-3


class RunningStatistics:
    """Mean and standard deviation per channel of all samples so far, batch by batch (Chan, Golub, LeVeque, 1983)."""

    def __init__(self, modality: Modality) -> None:
        self._is_frames = modality.is_frames
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(modality.channels)
        self._squares: NDArray[np.float64] = np.zeros(modality.channels)

    def update(self, values: Floats) -> None:
        """Take in samples of any leading shape: (..., C), or frames (..., Y, X). Samples with NaN are passed over."""
        rows = values.reshape(-1, 1 if self._is_frames else len(self.mean)).astype(np.float64)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            rows = rows[finite]
        if len(rows) == 0:
            return
        mean = rows.mean(axis=0)
        squares = ((rows - mean) ** 2).sum(axis=0)
        total = self.count + len(rows)
        step = mean - self.mean
        self._squares += squares + step**2 * (self.count * len(rows) / total)
        self.mean = self.mean + step * (len(rows) / total)
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviations (C,) of all so far, at least `SMALLEST_STD`; ones before there is a sample."""
        if self.count == 0:
            return np.ones_like(self.mean)
        return np.maximum(np.sqrt(self._squares / self.count), SMALLEST_STD)

    def scaling(self) -> Scaling:
        """The scaling that standardises what has been seen so far."""
        return Scaling(mean=tuple(self.mean.tolist()), std=tuple(self.std.tolist()))


def normalise(values: Floats, scaling: Scaling) -> Floats:
    """(values - mean) / std per channel: `values` (..., C), or frames of any shape when the scaling has one channel."""
    return scaling.normalise(values)


def normalise_then_update(statistics: RunningStatistics, values: Floats) -> Floats:
    """`values` in the scaling of all that came before them; only then do they count themselves."""
    scaled = normalise(values, statistics.scaling())
    statistics.update(values)
    return scaled
