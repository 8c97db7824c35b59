"""Which fields of a foreign message, line or row make a modality's samples, and which say when they were taken."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mekt.modality import Modality, ModalityName
from mekt.schema import Bounds
from sensors.source import Latency, named_once

MOST_CHANNELS = 64
# One number each: a name, a column's number from 1, or a path such as `imu.acc.0`.
Field = Annotated[str, Bounds(shortest=1, longest=128)]
Unit = Literal["s", "ms", "us", "ns"]
SECONDS: dict[Unit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
USUAL_UNITS = {"acc": "g", "gyro": "rad/s", "mag": "uT", "depth": "m"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """One modality out of foreign numbers: its channels are `fields`, each times its `scale`.

    `scale` turns what the sensor says into `unit`: one number for all channels, or one for each. Without `unit` it is
    the one that Mekt uses for that name: g, rad/s, uT. `rate_hz` is nominal. Stamps, or arrivals where there are none,
    are `latency_s` later than the samples.
    """

    name: ModalityName
    fields: Annotated[tuple[Field, ...], Bounds(shortest=1, longest=MOST_CHANNELS)]
    rate_hz: Annotated[float, Bounds(above=0, high=1e5)]
    scale: Annotated[tuple[Annotated[float, Bounds(low=-1e12, high=1e12)], ...], Bounds(shortest=1)] = (1.0,)
    unit: Annotated[str, Bounds(longest=16)] | None = None
    latency_s: Latency = 0.0

    def __post_init__(self) -> None:
        if len(self.scale) not in (1, len(self.fields)):
            raise ValueError(
                f"scale: {len(self.scale)} numbers for {len(self.fields)} fields; give one, or one for each"
            )

    @property
    def modality(self) -> Modality:
        """What it gives: samples of shape (C,)."""
        unit = USUAL_UNITS.get(self.name, "") if self.unit is None else self.unit
        return Modality(name=self.name, shape=(len(self.fields),), rate_hz=self.rate_hz, unit=unit)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeField:
    """The field that says when a sample was taken, by the sensor's own clock.

    `bits` is the width of a counter that begins at 0 again when it is full, such as 32 of a board's milliseconds.
    Where many samples have one time, it is that of the `first` or the `last` of them.
    """

    field: Field
    unit: Unit = "s"
    bits: Annotated[int, Bounds(low=8, high=64)] | None = None
    of: Literal["first", "last"] = "last"

    @property
    def wraps_s(self) -> float | None:
        """The span after which the counter begins anew."""
        return None if self.bits is None else 2.0**self.bits * SECONDS[self.unit]


Signals = Annotated[tuple[Signal, ...], Bounds(shortest=1, longest=16)]


def signals_named_once(signals: tuple[Signal, ...]) -> None:
    """Raise ValueError, as settings do, when two signals have one name."""
    try:
        named_once([each.name for each in signals])
    except ValueError as error:
        raise ValueError("signals: a name occurs twice; name each once") from error
