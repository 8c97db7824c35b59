"""What every source of samples gives, live or replayed: time-stamped blocks, and marks where the stream starts anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality

Floats = NDArray[np.float32]
Seconds = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Block:
    """Samples of one modality: times (n,) on the source's clock, values (n, *shape) in the modality's unit.

    In a bad source times repeat or go backwards; who consumes blocks must bear it.

    Raises:
        SensorError: when times and values are not equally many.
    """

    modality: str
    t_s: Seconds
    values: Floats

    def __post_init__(self) -> None:
        if self.t_s.ndim != 1 or self.values.ndim < 2 or len(self.values) != len(self.t_s):
            raise SensorError(
                f"{self.modality}: a block with times {self.t_s.shape} and values {self.values.shape};"
                " a driver must give one time for each sample",
                catalogue.SENSOR_UNUSABLE,
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """The stream starts anew here: nothing before belongs to what follows."""


Item = Block | Gap


class Source(Protocol):
    """A sensor, or whatever stands for one. One thread at a time uses it."""

    modalities: tuple[Modality, ...]

    def open(self) -> None:
        """Begin to sense.

        Raises:
            SensorError: when the sensor is not there.
        """

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What was sensed since the last call; empty when nothing came in time, None when it has ended for good.

        Raises:
            SensorError: when the sensor fails while it is read.
        """

    def close(self) -> None:
        """Let the sensor go; a closed source is closed again without harm."""
