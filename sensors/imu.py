"""Accelerometers and gyroscopes on an I2C bus, without a driver of the kernel's: what is told about them, and a search.

Where the kernel has a driver for the chip, use that: it knows interrupts. This one needs none.
"""

import fcntl
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mekt.errors import SensorError
from mekt.modality import Modality
from mekt.schema import Bounds
from sensors import adxl345, lsm6ds, mpu6050
from sensors.adxl345 import Adxl345
from sensors.chip import AccRange, Chip, GyroRange, Wait, Wish
from sensors.found import Found
from sensors.i2c import I2cDevice, Ioctl, Registers, buses
from sensors.imu_source import ImuSource, Sensor
from sensors.lsm6ds import Lsm6ds
from sensors.mpu6050 import Mpu
from sensors.source import Floats, Latency, SensedNames, named_once

ChipName = Literal["mpu6050", "mpu6500", "mpu9250", "lsm6ds3", "lsm6dso", "adxl345"]
UNITS: Mapping[Sensor, str] = {"acc": "g", "gyro": "rad/s"}
ROTATION_TOLERANCE = 0.01
# Buses of graphics cards: what is on them are monitors, which nobody should disturb.
NOT_SEARCHED = ("ddc", "aux", "drm", "hdmi", "dpdc", "nvidia", "radeon", "amdgpu", "i915", "gmbus")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A chip that may be named: what speaks to it, where it may be, the register that tells it, and what it has."""

    chip: Callable[[Registers, Wish, Wait, frozenset[int]], Chip]
    addresses: tuple[int, ...]
    identity: int
    identities: frozenset[int]
    gyro_ranges: frozenset[int]


def _mpu(model: mpu6050.Model) -> Kind:
    return Kind(
        chip=lambda registers, wish, wait, ids: Mpu(registers, replace(model, identities=ids), wish, wait),
        addresses=mpu6050.ADDRESSES,
        identity=mpu6050.WHO_AM_I,
        identities=model.identities,
        gyro_ranges=frozenset(mpu6050.GYRO_RANGES),
    )


def _lsm(model: lsm6ds.Model) -> Kind:
    return Kind(
        chip=lambda registers, wish, wait, ids: Lsm6ds(registers, replace(model, identities=ids), wish, wait),
        addresses=lsm6ds.ADDRESSES,
        identity=lsm6ds.WHO_AM_I,
        identities=model.identities,
        gyro_ranges=frozenset(lsm6ds.GYRO_RANGES),
    )


KINDS: Mapping[ChipName, Kind] = {
    "mpu6050": _mpu(mpu6050.MPU6050),
    "mpu6500": _mpu(mpu6050.MPU6500),
    "mpu9250": _mpu(mpu6050.MPU9250),
    "lsm6ds3": _lsm(lsm6ds.LSM6DS3),
    "lsm6dso": _lsm(lsm6ds.LSM6DSO),
    "adxl345": Kind(
        chip=Adxl345,
        addresses=adxl345.ADDRESSES,
        identity=adxl345.DEVID,
        identities=adxl345.IDENTITIES,
        gyro_ranges=frozenset(),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImuSettings:
    """A `chip` at `address` of an I2C `bus`, which is a number, a device file or an adapter's name.

    The first of `modalities` that is called `acc`, or `acc_` and something, is the acceleration in g, one called `gyro`
    likewise the rotation in rad/s. The chip measures at that of its rates which is nearest to `rate_hz`, within
    +- `acc_range_g` and `gyro_range_dps` (degrees per second). `mounting` are the rows of a rotation matrix that turns
    the chip's axes into the body's. Without `fifo` each sample is asked for. `identity` is what a copy of the chip
    answers instead of the chip's own identity. Times are `latency_s` later than what they are of, such as by the delay
    of the chip's filter.
    """

    kind: Literal["imu"] = "imu"
    modalities: SensedNames
    chip: ChipName
    bus: Annotated[str, Bounds(shortest=1, longest=200)] = "1"
    address: Annotated[int, Bounds(low=0x08, high=0x77)] | None = None
    rate_hz: Annotated[float, Bounds(low=1, high=2000)] = 50.0
    acc_range_g: AccRange = 8
    gyro_range_dps: GyroRange = 1000
    mounting: Annotated[tuple[tuple[float, ...], ...], Bounds(longest=3)] = ()
    fifo: bool = True
    identity: Annotated[int, Bounds(low=0, high=0xFF)] | None = None
    latency_s: Latency = 0.0

    def __post_init__(self) -> None:
        named_once(self.modalities)
        sensed = [_sensor(name) for name in self.modalities]
        if None in sensed or len(set(sensed)) < len(sensed):
            raise ValueError(
                f"modalities: {', '.join(self.modalities)}: expected one called acc or acc_..., one called gyro"
                " or gyro_..., or both"
            )
        ranges = KINDS[self.chip].gyro_ranges
        if "gyro" in sensed and not ranges:
            raise ValueError(f"modalities: {self.chip} has no gyroscope; name acc alone")
        if "gyro" in sensed and self.gyro_range_dps not in ranges:
            expected = ", ".join(map(str, sorted(ranges)))
            raise ValueError(f"gyro_range_dps: {self.chip} has {expected}, not {self.gyro_range_dps}")
        if self.mounting:
            rotation(self.mounting)

    def source(self, base: Path) -> ImuSource:
        """The chip as a source; `base` does not matter."""
        address = KINDS[self.chip].addresses[0] if self.address is None else self.address
        return self.on(I2cDevice(self.bus, address))

    def on(
        self, device: I2cDevice, *, clock: Callable[[], float] = time.monotonic, wait: Wait = time.sleep
    ) -> ImuSource:
        """The chip that is `device`, as a source that tells times by `clock`."""
        kind = KINDS[self.chip]
        sensed = [_sensor(name) for name in self.modalities]
        wish = Wish(
            acc="acc" in sensed,
            gyro="gyro" in sensed,
            rate_hz=self.rate_hz,
            acc_range_g=self.acc_range_g,
            gyro_range_dps=self.gyro_range_dps,
        )
        identities = kind.identities if self.identity is None else frozenset({self.identity})
        chip = kind.chip(device, wish, wait, identities)
        modalities = {
            sensor: Modality(name=name, shape=(3,), rate_hz=chip.rate_hz, unit=UNITS[sensor])
            for sensor, name in zip(sensed, self.modalities, strict=True)
            if sensor is not None
        }
        mounting = rotation(self.mounting) if self.mounting else None
        reach: dict[Sensor, float] = {"acc": self.acc_range_g, "gyro": math.radians(self.gyro_range_dps)}
        return ImuSource(
            device,
            chip,
            modalities,
            mounting=mounting,
            ranges={sensor: reach[sensor] for sensor in modalities},
            fifo=self.fifo,
            latency_s=self.latency_s,
            clock=clock,
            wait=wait,
        )


def found(*, probe: bool = False, root: Path = Path("/"), ioctl: Ioctl = fcntl.ioctl) -> tuple[Found, ...]:
    """The chips on this machine's I2C buses, with `probe` alone: without it nothing is touched, and nothing found.

    A chip is known by a register that is read from every address at which one of those here could be. Whatever else has
    that address is read from too: a clock (0x68) or a memory (0x53) bears it, but there are devices that a read
    disturbs. Addresses that a driver of the kernel has, and monitors' buses, are left alone.
    """
    there: list[Found] = []
    names = buses(root) if probe else {}
    for number, adapter in names.items():
        if any(word in adapter.lower() for word in NOT_SEARCHED):
            continue
        # Names stay as they are where numbers change.
        bus = adapter if adapter and list(names.values()).count(adapter) == 1 else str(number)
        read: dict[tuple[int, int], int | None] = {}
        for chip, kind in KINDS.items():
            for address in kind.addresses:
                place = address, kind.identity
                if place not in read:
                    read[place] = _read(I2cDevice(str(number), address, root=root, ioctl=ioctl), kind.identity)
                if read[place] in kind.identities:
                    there.append(_found(chip, kind, bus, address, f"I2C bus {number} ({adapter})"))
    return tuple(there)


def rotation(rows: Sequence[Sequence[float]]) -> Floats:
    """The rotation matrix (3, 3) nearest to these rows.

    Raises:
        ValueError: when they are not one, to a tolerance for numbers that people round.
    """
    if [len(row) for row in rows] != [3, 3, 3]:
        raise ValueError("mounting: expected three rows of three numbers, such as [[0, -1, 0], [1, 0, 0], [0, 0, 1]]")
    matrix = np.array(rows, dtype=np.float64)
    # A chip is not stretched, nor seen in a mirror.
    if np.abs(matrix @ matrix.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(matrix) < 0:
        raise ValueError("mounting: not a rotation; its rows must be at right angles, of length 1, and right-handed")
    left, _, right = np.linalg.svd(matrix)
    nearest: Floats = (left @ right).astype(np.float32)
    return nearest


def _sensor(name: str) -> Sensor | None:
    match name.split("_")[0]:
        case "acc":
            return "acc"
        case "gyro":
            return "gyro"
        case _:
            return None


def _read(device: I2cDevice, register: int) -> int | None:
    """What a register holds; None when nothing answers, or a driver has the address."""
    try:
        device.open()
        return device.read(register, 1)[0]
    except SensorError:
        return None
    finally:
        device.close()


def _found(chip: ChipName, kind: Kind, bus: str, address: int, where: str) -> Found:
    modalities = ["acc", "gyro"] if kind.gyro_ranges else ["acc"]
    # TOML's basic strings are JSON's, and so are its lists of them.
    lines = (
        "[[sensors]]",
        'kind = "imu"',
        f"modalities = {json.dumps(modalities)}",
        f'chip = "{chip}"',
        f"bus = {json.dumps(bus)}",
        f"address = {address:#04x}",
        "rate_hz = 50",
    )
    text = f"{chip} at {address:#04x} on {where}"
    return Found(kind="imu", name=f"{chip}@{address:#04x}", text=text, toml="\n".join(lines) + "\n")
