"""What every chip that measures acceleration and rotation has in common, whatever its registers.

Shapes: n samples; (n, 3) are the axes x, y, z as they are printed on the chip.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from sensors.i2c import Registers
from sensors.source import Floats

AccRange = Literal[2, 4, 8, 16]
GyroRange = Literal[125, 250, 500, 1000, 2000]
Wait = Callable[[float], None]
AXES = ("x", "y", "z")
# A chip that is asked whether a sample is ready is asked so often, at most for so long.
ASK_S, PATIENCE_S = 0.002, 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is to be measured: which sensors of the chip, how often, within +- which ranges (g, degrees per second)."""

    acc: bool
    gyro: bool
    rate_hz: float
    acc_range_g: AccRange
    gyro_range_dps: GyroRange

    @property
    def sensors(self) -> int:
        """How many sensors of the chip are used."""
        return int(self.acc) + int(self.gyro)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """How many samples wait in the chip, and whether it says that it had to drop some."""

    samples: int
    overrun: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Samples in order, of what is wished for: `acc` in g, `gyro` in rad/s, each (n, 3) or None.

    `lost`: before the first of them, others were lost.
    """

    acc: Floats | None
    gyro: Floats | None
    lost: bool = False

    def __len__(self) -> int:
        present = self.acc if self.acc is not None else self.gyro
        return 0 if present is None else len(present)


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisTest:
    """How one axis moved in a self test, and within which limits a sound one does; not a number where none is known."""

    axis: str
    value: float
    low: float
    high: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the axis is sound."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        limits = f"at least {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"
        return f"{self.axis}: {self.value:.4g} {self.unit} ({limits}) {'ok' if self.passed else 'FAILED'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTest:
    """The result of a chip's self test, axis by axis."""

    chip: str
    axes: tuple[AxisTest, ...]

    @property
    def passed(self) -> bool:
        """Whether all axes are sound."""
        return all(each.passed for each in self.axes)

    def __str__(self) -> str:
        return "\n".join((f"{self.chip}: {'passed' if self.passed else 'FAILED'}", *map(str, self.axes)))


class Chip(Protocol):
    """A chip behind its registers. Whatever it does may raise SensorError."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def rate_hz(self) -> float:
        """The rate nearest to the wish that it has, by its data sheet."""

    @property
    def capacity(self) -> int:
        """How many samples it keeps until they are fetched."""

    def identify(self) -> None:
        """Make sure that it is this chip that answers.

        Raises:
            SensorError: when it is not; says what was found.
        """

    def start(self, *, fifo: bool) -> None:
        """Reset it, set it as wished and begin to measure, with its FIFO or without."""

    def fill(self) -> Fill:
        """How much waits in the FIFO."""

    def take(self, fill: Fill) -> Batch:
        """Fetch what `fill` said, and say whether samples were lost before it."""

    def look(self) -> Batch | None:
        """The newest sample, all its axes from the same instant, unless it has been seen before. Without FIFO."""

    def self_test(self) -> SelfTest:
        """The self test of its data sheet; it has to lie still. It has to be started again afterwards."""

    def stop(self) -> None:
        """Put it to sleep."""


def check_identity(registers: Registers, name: str, register: int, wanted: frozenset[int]) -> None:
    """Make sure that `register` holds one of the identities of the chip called `name`.

    Raises:
        SensorError: when it holds another; says which.
    """
    [seen] = registers.read(register, 1)
    if seen not in wanted:
        expected = " or ".join(f"{each:#04x}" for each in sorted(wanted))
        hint = f"that is the identity of {KNOWN[seen]}: name the right chip" if seen in KNOWN else "name the right chip"
        raise SensorError(
            f"{registers.where}: no {name}: its identity reads {seen:#04x}, expected {expected}; {hint}"
            f" in the settings, or check the address",
            catalogue.SENSOR_UNUSABLE,
        )


# Identities as register 0x75 (InvenSense), 0x0F (ST) or 0x00 (Analog Devices) gives them.
KNOWN = {
    0x68: "MPU-6050",
    0x70: "MPU-6500",
    0x71: "MPU-9250",
    0x73: "MPU-9255",
    0x69: "LSM6DS3",
    0x6A: "LSM6DS3TR-C or LSM6DSL",
    0x6C: "LSM6DSO",
    0xE5: "ADXL345",
}


def nearest(rates_hz: Sequence[float], wanted_hz: float) -> int:
    """The index of the rate that is nearest to the wanted one; of two, the first."""
    return min(range(len(rates_hz)), key=lambda index: abs(rates_hz[index] - wanted_hz))


def burst(registers: Registers, register: int, frames: int, frame_bytes: int) -> bytes:
    """So many frames out of a register behind which a chip hands out its FIFO, in as few reads as possible."""
    most, parts = registers.longest // frame_bytes, []
    while frames > 0:
        now = min(frames, most)
        parts.append(registers.read(register, now * frame_bytes))
        frames -= now
    return b"".join(parts)


def scaled(counts: NDArray[np.int16], unit: float) -> Floats:
    """Raw counts in the unit of one of them."""
    return (counts * np.float32(unit)).astype(np.float32)


def average(chip: Chip, samples: int, skip: int, wait: Wait) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of acc and gyro, each (3,), over so many samples after the first `skip`; zeros for what is not measured.

    Raises:
        SensorError: when the chip gives no samples.
    """
    sums = np.zeros((2, 3))
    for index in range(skip + samples):
        batch = _next_sample(chip, wait)
        if index >= skip:
            for row, values in enumerate((batch.acc, batch.gyro)):
                sums[row] += 0.0 if values is None else values[0]
    acc, gyro = sums / samples
    return acc, gyro


def _next_sample(chip: Chip, wait: Wait) -> Batch:
    for _ in range(round(PATIENCE_S / ASK_S)):
        batch = chip.look()
        if batch is not None:
            return batch
        wait(ASK_S)
    raise SensorError(f"{chip.name}: gives no samples; switch it off and on", catalogue.SENSOR_UNUSABLE)


def axis_tests(kind: str, values: Iterable[float], limits: Sequence[tuple[float, float]], unit: str) -> list[AxisTest]:
    """One result for each axis."""
    return [
        AxisTest(axis=f"{kind} {axis}", value=float(value), low=low, high=high, unit=unit)
        for axis, value, (low, high) in zip(AXES, values, limits, strict=True)
    ]
