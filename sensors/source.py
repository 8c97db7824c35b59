"""What every source of samples gives, live or replayed: time-stamped blocks, and marks where the stream starts anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality, ModalityName
from mekt.schema import Bounds

# What the settings of every kind of source name.
SensedNames = Annotated[tuple[ModalityName, ...], Bounds(shortest=1, longest=16)]
# What they may say of a delay that no clock shows, of an exposure, a filter, a transport: by how much, at a constant, a
# stamp is later than what it is of. Less than 0 where stamps come too early.
Latency = Annotated[float, Bounds(low=-10, high=10)]
Floats = NDArray[np.float32]
Seconds = NDArray[np.float64]
# Values of samples in a row: of a signal an array (n, C), of frames each by itself (Y, X).
Values = Floats | Sequence[Floats]


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

    def earlier(self, by_s: float) -> "Block":
        """The same samples, taken so much earlier."""
        return self if by_s == 0 else Block(modality=self.modality, t_s=self.t_s - by_s, values=self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """The streams of these modalities start anew here, or end: nothing before belongs to what follows."""

    modalities: tuple[str, ...]


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


@runtime_checkable
class Ranged(Protocol):
    """A source whose device says how far it reaches."""

    def ranges(self) -> Mapping[str, float]:
        """The largest value of a modality that the device can show as it is set, in its unit; while it is open."""


class Settings(Protocol):
    """One `[[sensors]]` table: a frozen dataclass whose field `kind` is the kind's name alone."""

    @property
    def kind(self) -> str:
        """The kind's name."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of what the source gives."""

    def source(self, base: Path) -> Source:
        """The source, not yet opened; relative paths start at `base`.

        Raises:
            SettingsError: when a file that the settings name is not there.
            MissingPackageError: when the source needs a package that is not installed.
            SensorError: when it can never give what the settings say.
        """


def named_once(names: Sequence[str]) -> None:
    """Raise ValueError, as settings do, when a modality is named twice."""
    if len(set(names)) != len(names):
        raise ValueError("modalities: a name occurs twice; name each once")
