"""Analog Devices ADXL345: registers, FIFO, self test.

Source: ADXL345 data sheet, rev. E; its identity, rates and the size of a count are in Linux too
(drivers/iio/accel/adxl345_core.c). Each read of the six data registers takes one sample out of the FIFO, which holds 32
and, in stream mode, always the newest ones; the chip needs 5 us between two reads, less than it takes to address it
(section "FIFO").
"""

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from sensors.chip import Batch, Fill, SelfTest, Wait, Wish, average, axis_tests, check_identity, nearest, scaled
from sensors.i2c import Registers

# Table 19
DEVID = 0x00
OFSX = 0x1E  # offsets of three axes
BW_RATE = 0x2C
POWER_CTL = 0x2D
INT_ENABLE = 0x2E
INT_SOURCE = 0x30
DATA_FORMAT = 0x31
DATAX0 = 0x32  # three little-endian words
FIFO_CTL = 0x38
FIFO_STATUS = 0x39

MEASURE = 0x08  # POWER_CTL
DATA_READY, OVERRUN = 0x80, 0x01  # INT_SOURCE, which has them also where no interrupt is enabled
SELF_TEST, FULL_RES = 0x80, 0x08  # DATA_FORMAT
STREAM, BYPASS, ENTRIES = 0x80, 0x00, 0x3F  # FIFO_CTL, FIFO_STATUS
# 32 in the FIFO and one in the output filter (register 0x39).
CAPACITY = 32
MOST_ENTRIES = 33

IDENTITIES = frozenset({0xE5})
ADDRESSES = (0x53, 0x1D)
# Rates by their codes (table 7); above 800 Hz a bus of 400 kHz is too slow (section "I2C").
FIRST_CODE = 6
RATES_HZ = (6.25, 12.5, 25.0, 50.0, 100.0, 200.0, 400.0, 800.0)
ACC_RANGES = {2: 0, 4: 1, 8: 2, 16: 3}
# With full resolution a count has the same size in all ranges (table 1).
COUNT_G = 1 / 256
SETTLE_S = 0.05
# Self test at 100 Hz, the slowest rate at which its limits hold, in the largest range, in full resolution (section
# "Self-test"): change in counts at 2.5 V (table 15), times the factor for 3.3 V, the supply of nearly all boards (14).
TEST_RATE_HZ, TEST_SAMPLES, TEST_SKIP = 100.0, 32, 8
TEST_COUNTS = ((50.0, 540.0), (-540.0, -50.0), (75.0, 875.0))
SUPPLY_FACTORS = (1.77, 1.77, 1.47)


class Adxl345:
    """The chip behind its registers (`sensors.chip.Chip`)."""

    name = "ADXL345"
    capacity = CAPACITY

    def __init__(self, registers: Registers, wish: Wish, wait: Wait, identities: frozenset[int] = IDENTITIES) -> None:
        self._registers, self._wish, self._wait, self._identities = registers, wish, wait, identities
        self._rate = nearest(RATES_HZ, wish.rate_hz)
        # What was seen last without FIFO.
        self._output = bytes(6)

    @property
    def rate_hz(self) -> float:
        """One of the chip's rates."""
        return RATES_HZ[self._rate]

    def identify(self) -> None:
        """Read DEVID."""
        check_identity(self._registers, self.name, DEVID, self._identities)

    def start(self, *, fifo: bool) -> None:
        """Set all that matters, as there is no reset, and begin."""
        write = self._registers.write
        write(POWER_CTL, 0)
        write(FIFO_CTL, BYPASS)
        write(INT_ENABLE, 0)
        for axis in range(3):
            write(OFSX + axis, 0)
        write(BW_RATE, FIRST_CODE + self._rate)
        write(DATA_FORMAT, FULL_RES | ACC_RANGES[self._wish.acc_range_g])
        write(POWER_CTL, MEASURE)
        self._wait(SETTLE_S)
        if fifo:
            write(FIFO_CTL, STREAM)
            # What nobody fetched until now is no loss; fetching clears the flag.
            self._registers.read(DATAX0, 6)

    def fill(self) -> Fill:
        """The number of entries.

        Raises:
            SensorError: when there would be more than the FIFO holds.
        """
        [source] = self._registers.read(INT_SOURCE, 1)
        [status] = self._registers.read(FIFO_STATUS, 1)
        entries = status & ENTRIES
        if entries > MOST_ENTRIES:
            raise SensorError(
                f"{self._registers.where}: {entries} samples in a FIFO of {CAPACITY}; check cable and power",
                catalogue.SENSOR_UNUSABLE,
            )
        return Fill(samples=entries, overrun=bool(source & OVERRUN))

    def take(self, fill: Fill) -> Batch:
        """The samples; after an overrun the newest ones, which are whole."""
        data = b"".join(self._registers.read(DATAX0, 6) for _ in range(fill.samples))
        return self._batch(data, lost=fill.overrun)

    def look(self) -> Batch | None:
        """Flags and data registers in one read. Data of which the flag does not know yet count by being others."""
        data = self._registers.read(INT_SOURCE, DATAX0 - INT_SOURCE + 6)
        output = data[-6:]
        if not data[0] & DATA_READY and output == self._output:
            return None
        self._output = output
        return self._batch(output)

    def stop(self) -> None:
        """Standby."""
        self._registers.write(POWER_CTL, 0)

    def self_test(self) -> SelfTest:
        """What the built-in force changes, with limits for a supply of 3.3 V."""
        wish = Wish(acc=True, gyro=False, rate_hz=TEST_RATE_HZ, acc_range_g=16, gyro_range_dps=2000)
        chip = Adxl345(self._registers, wish, self._wait)
        chip.start(fifo=False)
        off_g, _ = average(chip, TEST_SAMPLES, TEST_SKIP, self._wait)
        self._registers.write(DATA_FORMAT, SELF_TEST | FULL_RES | ACC_RANGES[16])
        on_g, _ = average(chip, TEST_SAMPLES, TEST_SKIP, self._wait)
        self._registers.write(DATA_FORMAT, FULL_RES | ACC_RANGES[16])
        limits = [
            (low * COUNT_G * factor, high * COUNT_G * factor)
            for (low, high), factor in zip(TEST_COUNTS, SUPPLY_FACTORS, strict=True)
        ]
        return SelfTest(chip=self.name, axes=tuple(axis_tests("acc", on_g - off_g, limits, "g")))

    def _batch(self, data: bytes, *, lost: bool = False) -> Batch:
        words: NDArray[np.int16] = np.frombuffer(data, dtype="<i2").astype(np.int16).reshape(-1, 3)
        return Batch(acc=scaled(words, COUNT_G), gyro=None, lost=lost)
