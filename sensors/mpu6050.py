"""InvenSense MPU-6050, MPU-6500 and MPU-9250: registers, FIFO, self test. The compass of the last is left alone.

Sources: "MPU-6000 and MPU-6050 Register Map and Descriptions", RM-MPU-6000A-00, rev. 4.2 (RM); "MPU-6000 and MPU-6050
Product Specification", PS-MPU-6000A-00, rev. 3.4 (PS); "MPU-9250 Register Map and Descriptions", RM-MPU-9250A-00, rev.
1.4 (RM9250); InvenSense's Motion Driver 6, `inv_mpu.c`, whose self test PS and RM9250 tell one to use (MD); Linux,
drivers/iio/imu/inv_mpu6050 (Linux).

What the FIFO holds are the bytes of the data registers in ascending order, big-endian: acceleration, then rotation.
When it overflows the oldest data are lost, in the later chips as long as bit 6 of CONFIG is 0 (RM, section 4.31;
RM9250, section 4.37). Those are bytes, not samples, so what remains cannot be told apart: it is emptied. Nothing is
compensated for temperature: over 0 to 70 degrees the zero of acceleration moves by up to 60 mg, that of rotation by up
to 20 degrees per second over the whole range (PS, sections 6.1 and 6.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from sensors.chip import (
    AXES,
    AccRange,
    AxisTest,
    Batch,
    Fill,
    SelfTest,
    Wait,
    Wish,
    average,
    axis_tests,
    burst,
    check_identity,
    nearest,
    scaled,
)
from sensors.i2c import Registers

# RM and RM9250, section 3; Linux, inv_mpu_iio.h
SELF_TEST_GYRO = 0x00  # three registers, not in the MPU-6050
SELF_TEST_X = 0x0D  # four registers; the first three are those of acceleration in the MPU-6500
SMPLRT_DIV = 0x19
CONFIG = 0x1A
GYRO_CONFIG = 0x1B
ACCEL_CONFIG = 0x1C
ACCEL_CONFIG_2 = 0x1D  # not in the MPU-6050
FIFO_EN = 0x23
INT_ENABLE = 0x38
INT_STATUS = 0x3A  # then acceleration, temperature, rotation: seven big-endian words
USER_CTRL = 0x6A
PWR_MGMT_1 = 0x6B
PWR_MGMT_2 = 0x6C
FIFO_COUNTH = 0x72
FIFO_R_W = 0x74
WHO_AM_I = 0x75

# Bits (RM, registers 27, 28, 35, 56, 58, 106, 107)
SELF_TEST_ALL = 0xE0
FIFO_EN_ACCEL, FIFO_EN_GYRO = 0x08, 0x70
FIFO_OFLOW, DATA_RDY = 0x10, 0x01
USER_FIFO_EN, USER_FIFO_RESET = 0x40, 0x04
DEVICE_RESET, SLEEP, CLOCK_GYRO_X = 0x80, 0x40, 0x01

ADDRESSES = (0x68, 0x69)
# With the low-pass filter on, the gyroscope is sampled at 1 kHz and divided by 1 to 256 (RM, register 25).
INNER_RATE_HZ = 1000.0
RATES_HZ = tuple(INNER_RATE_HZ / (1 + divider) for divider in range(256))
# Bandwidths (Hz) of the filter's settings 1 to 6; the lower ones of the two sensors' (RM, register 26).
BANDWIDTHS_HZ = (184.0, 94.0, 42.0, 20.0, 10.0, 5.0)
ACC_RANGES = {2: 0, 4: 1, 8: 2, 16: 3}
GYRO_RANGES = {250: 0, 500: 1, 1000: 2, 2000: 3}
# Counts per g at 2 g, and per degree per second at 250 (PS, sections 6.1 and 6.2).
ACC_COUNTS, GYRO_COUNTS = 16384.0, 131.0
# After a reset (Linux, INV_MPU6050_POWER_UP_TIME); until the gyroscope's zero has settled, 30 ms (PS, section 6.1) and
# the filter of 5 Hz with it.
RESET_S, SETTLE_S, FIFO_RESET_S = 0.1, 0.1, 0.002
# In a self test: 100 Hz; the mean of so many samples after those in which filter and proof masses come to rest.
TEST_RATE_HZ, TEST_SAMPLES, TEST_SKIP = 100.0, 40, 20
# PS, sections 6.1 and 6.2: how far the response may be from the factory's, in percent; and what it may be by itself
# where the factory left no code for an axis, in g and degrees per second (MD, `test_s` of the MPU-6050: min_g, ...).
TRIM_LIMITS = (-14.0, 14.0)
ACC_BARE, GYRO_BARE = (0.3, 0.95), (10.0, 105.0)
# The same of the later ones, the first as a share of the factory's (MD, `test_s` of the MPU-6500, criteria A and B).
LATER_ACC_SHARE, LATER_GYRO_SHARE = (50.0, 150.0), (50.0, math.inf)
LATER_ACC_BARE, LATER_GYRO_BARE = (0.225, 0.675), (60.0, math.inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What tells the family's members apart. `later` ones have another filter for acceleration, and another test."""

    name: str
    identities: frozenset[int]
    fifo_bytes: int
    later: bool


MPU6050 = Model(name="MPU-6050", identities=frozenset({0x68}), fifo_bytes=1024, later=False)
MPU6500 = Model(name="MPU-6500", identities=frozenset({0x70}), fifo_bytes=512, later=True)
MPU9250 = Model(name="MPU-9250", identities=frozenset({0x71, 0x73}), fifo_bytes=512, later=True)


class Mpu:
    """A chip of the family behind its registers (`sensors.chip.Chip`)."""

    def __init__(self, registers: Registers, model: Model, wish: Wish, wait: Wait) -> None:
        self._registers, self._model, self._wish, self._wait = registers, model, wish, wait
        self._divider = nearest(RATES_HZ, wish.rate_hz)
        self._acc_g = (1 << ACC_RANGES[wish.acc_range_g]) / ACC_COUNTS
        self._gyro_rad_s = math.radians((1 << GYRO_RANGES[wish.gyro_range_dps]) / GYRO_COUNTS)
        self._frame_bytes = 6 * wish.sensors

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    @property
    def rate_hz(self) -> float:
        """1 kHz divided by a whole number."""
        return RATES_HZ[self._divider]

    @property
    def capacity(self) -> int:
        """Whole samples in the FIFO."""
        return self._model.fifo_bytes // self._frame_bytes

    def identify(self) -> None:
        """Read WHO_AM_I."""
        check_identity(self._registers, self.name, WHO_AM_I, self._model.identities)

    def start(self, *, fifo: bool) -> None:
        """Reset, wake up on the gyroscope's clock, set rate, filter and ranges, and begin."""
        self._set(self._divider, ACC_RANGES[self._wish.acc_range_g], GYRO_RANGES[self._wish.gyro_range_dps])
        if fifo:
            self._restart_fifo()

    def fill(self) -> Fill:
        """Whole samples in the FIFO. Whether it overflowed is asked after they are fetched.

        Raises:
            SensorError: when there would be more than the FIFO holds.
        """
        there = int.from_bytes(self._registers.read(FIFO_COUNTH, 2), "big")
        if there > self._model.fifo_bytes:
            raise SensorError(
                f"{self._registers.where}: {there} bytes in a FIFO of {self._model.fifo_bytes}; check cable and power",
                catalogue.SENSOR_UNUSABLE,
            )
        return Fill(samples=there // self._frame_bytes, overrun=there > self._model.fifo_bytes - self._frame_bytes)

    def take(self, fill: Fill) -> Batch:
        """The samples, or none and an empty FIFO when it overflowed, even while they were fetched."""
        data = b"" if fill.overrun else burst(self._registers, FIFO_R_W, fill.samples, self._frame_bytes)
        [status] = self._registers.read(INT_STATUS, 1)
        lost = fill.overrun or bool(status & FIFO_OFLOW)
        if lost:
            self._restart_fifo()
            data = b""
        words = np.frombuffer(data, dtype=">i2").astype(np.int16).reshape(-1, self._wish.sensors, 3)
        return self._batch(words[:, 0], words[:, -1], lost=lost)

    def look(self) -> Batch | None:
        """The flag for new data and the data registers in one read, in which they do not change (RM, register 59)."""
        data = self._registers.read(INT_STATUS, 15)
        if not data[0] & DATA_RDY:
            return None
        words = np.frombuffer(data[1:], dtype=">i2").astype(np.int16)
        return self._batch(words[None, 0:3], words[None, 4:7])

    def stop(self) -> None:
        """Sleep."""
        self._registers.write(PWR_MGMT_1, SLEEP)

    def self_test(self) -> SelfTest:
        """Compare what the built-in forces do with what they did in the factory (RM, section 4.1; MD, self tests)."""
        acc_range: AccRange = 2 if self._model.later else 8
        wish = Wish(acc=True, gyro=True, rate_hz=TEST_RATE_HZ, acc_range_g=acc_range, gyro_range_dps=250)
        chip = Mpu(self._registers, self._model, wish, self._wait)
        chip.start(fifo=False)
        acc, gyro = average(chip, TEST_SAMPLES, TEST_SKIP, self._wait)
        self._registers.write(ACCEL_CONFIG, SELF_TEST_ALL | ACC_RANGES[acc_range] << 3)
        self._registers.write(GYRO_CONFIG, SELF_TEST_ALL)
        acc_on, gyro_on = average(chip, TEST_SAMPLES, TEST_SKIP, self._wait)
        acc_g, gyro_dps = acc_on - acc, np.degrees(gyro_on - gyro)
        axes = self._judged_later(acc_g, gyro_dps) if self._model.later else self._judged(acc_g, gyro_dps)
        return SelfTest(chip=self.name, axes=tuple(axes))

    def _judged(self, acc_g: NDArray[np.float64], gyro_dps: NDArray[np.float64]) -> list[AxisTest]:
        """Change from factory trim, in percent (RM, section 4.1); the response by itself where an axis has no code."""
        *upper, lower = self._registers.read(SELF_TEST_X, 4)
        acc_codes = [byte >> 5 << 2 | lower >> shift & 0x03 for byte, shift in zip(upper, (4, 2, 0), strict=True)]
        gyro_codes = [byte & 0x1F for byte in upper]
        acc_trim_g = [0.34 * (0.92 / 0.34) ** ((code - 1) / 30) if code else 0.0 for code in acc_codes]
        gyro_trim_dps = [
            sign * 25 * 1.046 ** (code - 1) if code else 0.0 for code, sign in zip(gyro_codes, (1, -1, 1), strict=True)
        ]
        return _off_trim("acc", acc_g, acc_trim_g, ACC_BARE, "g") + _off_trim(
            "gyro", gyro_dps, gyro_trim_dps, GYRO_BARE, "degrees/s"
        )

    def _judged_later(self, acc_g: NDArray[np.float64], gyro_dps: NDArray[np.float64]) -> list[AxisTest]:
        """Response as a share of the factory's, of rotation its amount; by itself where a code is missing (MD)."""
        tests: list[AxisTest] = []
        for kind, response, register, counts, unit, share, bare in (
            ("acc", acc_g, SELF_TEST_X, ACC_COUNTS, "g", LATER_ACC_SHARE, LATER_ACC_BARE),
            ("gyro", np.abs(gyro_dps), SELF_TEST_GYRO, GYRO_COUNTS, "degrees/s", LATER_GYRO_SHARE, LATER_GYRO_BARE),
        ):
            codes = self._registers.read(register, 3)
            if 0 in codes:
                tests += axis_tests(kind, np.abs(response), [bare] * 3, unit)
            else:
                trim = np.array([2620 * 1.01 ** (code - 1) / counts for code in codes])
                tests += axis_tests(kind, 100 * response / trim, [share] * 3, "% of factory trim")
        return tests

    def _set(self, divider: int, acc_range: int, gyro_range: int) -> None:
        write = self._registers.write
        write(PWR_MGMT_1, DEVICE_RESET)
        self._wait(RESET_S)
        write(PWR_MGMT_1, CLOCK_GYRO_X)
        write(PWR_MGMT_2, 0)
        # The widest filter that passes nothing from above half of the rate, but for the slowest rates.
        fitting = [each for each in BANDWIDTHS_HZ if each <= RATES_HZ[divider] / 2] or [BANDWIDTHS_HZ[-1]]
        filtered = 1 + BANDWIDTHS_HZ.index(fitting[0])
        write(CONFIG, filtered)
        if self._model.later:
            write(ACCEL_CONFIG_2, filtered)
        write(SMPLRT_DIV, divider)
        write(GYRO_CONFIG, gyro_range << 3)
        write(ACCEL_CONFIG, acc_range << 3)
        write(INT_ENABLE, FIFO_OFLOW | DATA_RDY)
        self._wait(SETTLE_S)

    def _restart_fifo(self) -> None:
        """Empty it, and forget that it overflowed."""
        write = self._registers.write
        write(FIFO_EN, 0)
        write(USER_CTRL, USER_FIFO_RESET)
        self._wait(FIFO_RESET_S)
        write(USER_CTRL, USER_FIFO_EN)
        self._registers.read(INT_STATUS, 1)
        write(FIFO_EN, FIFO_EN_ACCEL * self._wish.acc | FIFO_EN_GYRO * self._wish.gyro)

    def _batch(self, acc: NDArray[np.int16], gyro: NDArray[np.int16], *, lost: bool = False) -> Batch:
        return Batch(
            acc=scaled(acc, self._acc_g) if self._wish.acc else None,
            gyro=scaled(gyro, self._gyro_rad_s) if self._wish.gyro else None,
            lost=lost,
        )


def _off_trim(
    kind: str, response: NDArray[np.float64], trims: Sequence[float], bare: tuple[float, float], unit: str
) -> list[AxisTest]:
    """How far each axis's response is from its trim; where that is 0 the response's amount, within `bare`."""
    tests = []
    for axis, value, trim in zip(AXES, response.tolist(), trims, strict=True):
        seen, (low, high) = (100 * (value / trim - 1), TRIM_LIMITS) if trim else (abs(value), bare)
        what = "% off factory trim" if trim else unit
        tests.append(AxisTest(axis=f"{kind} {axis}", value=seen, low=low, high=high, unit=what))
    return tests
