"""ST LSM6DS3 (LSM6DS3TR-C, LSM6DSL) and LSM6DSO (LSM6DSOX): registers, FIFO, self test.

Sources: LSM6DS3 data sheet, DocID026899; LSM6DSL data sheet, DocID028475 rev. 7 (DSL); LSM6DSO data sheet, DS12140
rev. 2 (DSO); ST's examples `lsm6ds3tr_c_self_test.c` and `lsm6dso_self_test.c` (EX); Linux, drivers/iio/imu/st_lsm6dsx
(Linux). Their control and output registers are alike, their FIFOs are not:

- LSM6DS3: words of 16 bits, for each instant those of the gyroscope and then those of the accelerometer (DSL, section
  5.5.6). When it overruns, the oldest words go. What remains may begin anywhere, so it is emptied; the chip also says
  which of an instant's words comes next, by which an overrun is seen that happens while it is read.
- LSM6DSO: words of a tag and 6 bytes; the tag names the sensor and counts the instants (DSO, section 6.5.7). What
  remains after an overrun can be told apart, and is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from sensors.chip import Batch, Fill, SelfTest, Wait, Wish, average, axis_tests, burst, check_identity, nearest, scaled
from sensors.i2c import Registers

# Both (DSL and DSO, section "Register mapping")
WHO_AM_I = 0x0F
CTRL1_XL = 0x10  # rate, range of the accelerometer
CTRL2_G = 0x11  # the same of the gyroscope
CTRL3_C = 0x12
CTRL5_C = 0x14  # self test
STATUS_REG = 0x1E  # which data are new
OUTX_L_G = 0x22  # rotation, acceleration: six little-endian words
FIFO_STATUS1 = 0x3A
# LSM6DS3
DS3_FIFO_CTRL3 = 0x08  # decimation
DS3_FIFO_CTRL5 = 0x0A  # rate, mode
DS3_FIFO_STATUS3 = 0x3C  # which word of an instant comes next
DS3_FIFO_DATA_OUT_L = 0x3E
# LSM6DSO
DSO_FIFO_CTRL3 = 0x09  # batching rates
DSO_FIFO_CTRL4 = 0x0A  # mode
DSO_FIFO_DATA_OUT_TAG = 0x78

SW_RESET, BLOCK_DATA_UPDATE, COUNT_ON = 0x01, 0x40, 0x04  # CTRL3_C
ACC_READY, GYRO_READY = 0x01, 0x02  # STATUS_REG
ACC_TEST, GYRO_TEST = 0x01, 0x04  # CTRL5_C, in positive direction
BYPASS, CONTINUOUS = 0x00, 0x06  # mode of the FIFO
NO_DECIMATION_GYRO, NO_DECIMATION_ACC = 0x08, 0x01
# FIFO_STATUS2 of the LSM6DS3, whose lower bits count words; of the LSM6DSO, at most 512 words.
DS3_OVERRUN, DS3_EMPTY, DS3_COUNT, DS3_PATTERN = 0x40, 0x10, 0x0FFF, 0x03FF
DSO_OVERRUN, DSO_COUNT = 0x48, 0x03FF
DSO_WORD_BYTES, DSO_WORDS = 7, 512
TAG_GYRO, TAG_ACC = 0x01, 0x02

ADDRESSES = (0x6A, 0x6B)
# Rates by their codes, from 1 on; the first is 13 Hz in older data sheets.
RATES_HZ = (12.5, 26.0, 52.0, 104.0, 208.0, 416.0, 833.0, 1666.0)
ACC_RANGES = {2: 0x0, 16: 0x4, 4: 0x8, 8: 0xC}
GYRO_RANGES = {125: 0x2, 250: 0x0, 500: 0x4, 1000: 0x8, 2000: 0xC}
# Of one count (section "Mechanical characteristics"): mg at 2 g, and mdps at a range of 125 degrees per second. The
# ranges of the gyroscope are a little larger than they are called: 250 is 32768 x 8.75 mdps.
ACC_COUNT_MG, GYRO_COUNT_MDPS = 0.061, 4.375
RESET_TRIES, RESET_S = 10, 0.005
# Until the filters have settled: the gyroscope needs up to 192 ms, which are 5 samples at 26 Hz (Linux,
# `samples_to_discard` of the LSM6DSM; the others are taken to need no more).
SETTLE_S = 0.2
# Self test: accelerometer at 52 Hz and 4 g, gyroscope at 208 Hz and 2000 degrees per second; the mean of so many
# samples after the first (EX, whose waits are of 50 to 200 ms).
ACC_TEST_RATE_HZ, GYRO_TEST_RATE_HZ = 52.0, 208.0
ACC_TEST_S, GYRO_START_S, GYRO_TEST_S = 0.2, 0.8, 0.06
TEST_SAMPLES, TEST_SKIP = 5, 1
# Limits of the change, as amounts (DSO, table 2, Vst, "full-scale independent" for acceleration; EX has the same and
# those of the LSM6DS3); those of the gyroscope at 2000.
GYRO_TEST_DPS = (150.0, 700.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What tells the two kinds apart: `tagged` FIFO words, limits of the accelerometer's self test (g)."""

    name: str
    identities: frozenset[int]
    tagged: bool
    acc_test_g: tuple[float, float]


LSM6DS3 = Model(name="LSM6DS3", identities=frozenset({0x69, 0x6A}), tagged=False, acc_test_g=(0.09, 1.7))
LSM6DSO = Model(name="LSM6DSO", identities=frozenset({0x6C}), tagged=True, acc_test_g=(0.05, 1.7))


class Lsm6ds:
    """A chip of the family behind its registers (`sensors.chip.Chip`)."""

    def __init__(self, registers: Registers, model: Model, wish: Wish, wait: Wait) -> None:
        self._registers, self._model, self._wish, self._wait = registers, model, wish, wait
        self._rate = nearest(RATES_HZ, wish.rate_hz)
        self._acc_g = ACC_COUNT_MG / 1000 * (wish.acc_range_g // 2)
        self._gyro_rad_s = math.radians(GYRO_COUNT_MDPS / 1000 * (wish.gyro_range_dps // 125))
        # Of an instant whose words came only in part: the rest follows.
        self._begun = b""
        # The first sample behind a change of the FIFO's mode is not to be used (DSL, section 5.5).
        self._fresh = False
        # What was seen last without FIFO.
        self._output = bytes(12)

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    @property
    def rate_hz(self) -> float:
        """One of the chip's rates; both sensors have it."""
        return RATES_HZ[self._rate]

    @property
    def capacity(self) -> int:
        """Samples in the FIFO; of an LSM6DS3 in the smaller one of its variants, 4 kbyte."""
        return DSO_WORDS // self._wish.sensors if self._model.tagged else 4096 // (6 * self._wish.sensors)

    def identify(self) -> None:
        """Read WHO_AM_I."""
        check_identity(self._registers, self.name, WHO_AM_I, self._model.identities)

    def start(self, *, fifo: bool) -> None:
        """Reset, set rate and ranges, and begin; a sensor that is not wished for stays off."""
        write, wish, code = self._registers.write, self._wish, (self._rate + 1) << 4
        self._reset()
        write(CTRL1_XL, code | ACC_RANGES[wish.acc_range_g] if wish.acc else 0)
        write(CTRL2_G, code | GYRO_RANGES[wish.gyro_range_dps] if wish.gyro else 0)
        self._wait(SETTLE_S)
        if fifo:
            self._restart_fifo()

    def fill(self) -> Fill:
        """What FIFO_STATUS1 and 2 say.

        Raises:
            SensorError: when they contradict themselves.
        """
        status = int.from_bytes(self._registers.read(FIFO_STATUS1, 2), "little")
        if self._model.tagged:
            words = status & DSO_COUNT
            self._check(words <= DSO_WORDS, status)
            held = len(self._begun) // DSO_WORD_BYTES
            # Read word by word: an instant of which one sensor's has come counts when the other's is there.
            return Fill(samples=(words + held) // self._wish.sensors, overrun=bool(status >> 8 & DSO_OVERRUN))
        words = status & DS3_COUNT
        self._check(not status >> 8 & DS3_EMPTY or words == 0, status)
        return Fill(samples=words // (3 * self._wish.sensors), overrun=bool(status >> 8 & DS3_OVERRUN))

    def take(self, fill: Fill) -> Batch:
        """The samples; of an LSM6DS3 none, and an empty FIFO, when it overran."""
        batch = self._take_tagged(fill) if self._model.tagged else self._take_words(fill)
        if self._fresh and len(batch):
            self._fresh = False
            acc, gyro = (None if values is None else values[1:] for values in (batch.acc, batch.gyro))
            return Batch(acc=acc, gyro=gyro, lost=batch.lost)
        return batch

    def look(self) -> Batch | None:
        """Flags and output registers in one read. Data of which the flags do not know yet count by being others."""
        wanted = ACC_READY * self._wish.acc | GYRO_READY * self._wish.gyro
        data = self._registers.read(STATUS_REG, OUTX_L_G - STATUS_REG + 12)
        output = data[-12:]
        if data[0] & wanted != wanted and output == self._output:
            return None
        self._output = output
        words = np.frombuffer(output, dtype="<i2").astype(np.int16)
        return self._batch(words[None, :3], words[None, 3:])

    def stop(self) -> None:
        """Switch both sensors off."""
        self._registers.write(CTRL1_XL, 0)
        self._registers.write(CTRL2_G, 0)

    def self_test(self) -> SelfTest:
        """What the built-in forces change, one sensor after the other (EX)."""
        write, wait = self._registers.write, self._wait
        wish = Wish(acc=True, gyro=False, rate_hz=ACC_TEST_RATE_HZ, acc_range_g=4, gyro_range_dps=2000)
        chip = Lsm6ds(self._registers, self._model, wish, wait)
        chip.start(fifo=False)
        wait(ACC_TEST_S)
        acc_off, _ = average(chip, TEST_SAMPLES, TEST_SKIP, wait)
        write(CTRL5_C, ACC_TEST)
        wait(ACC_TEST_S)
        acc_on, _ = average(chip, TEST_SAMPLES, TEST_SKIP, wait)

        wish = Wish(acc=False, gyro=True, rate_hz=GYRO_TEST_RATE_HZ, acc_range_g=4, gyro_range_dps=2000)
        chip = Lsm6ds(self._registers, self._model, wish, wait)
        chip.start(fifo=False)
        wait(GYRO_START_S)
        _, gyro_off = average(chip, TEST_SAMPLES, TEST_SKIP, wait)
        write(CTRL5_C, GYRO_TEST)
        wait(GYRO_TEST_S)
        _, gyro_on = average(chip, TEST_SAMPLES, TEST_SKIP, wait)
        write(CTRL5_C, 0)
        acc_g, gyro_dps = np.abs(acc_on - acc_off), np.abs(np.degrees(gyro_on - gyro_off))
        axes = axis_tests("acc", acc_g, [self._model.acc_test_g] * 3, "g")
        axes += axis_tests("gyro", gyro_dps, [GYRO_TEST_DPS] * 3, "degrees/s")
        return SelfTest(chip=self.name, axes=tuple(axes))

    def _reset(self) -> None:
        self._registers.write(CTRL3_C, SW_RESET)
        for _ in range(RESET_TRIES):
            self._wait(RESET_S)
            [seen] = self._registers.read(CTRL3_C, 1)
            if not seen & SW_RESET:
                self._registers.write(CTRL3_C, BLOCK_DATA_UPDATE | COUNT_ON)
                return
        raise SensorError(
            f"{self._registers.where}: does not come back from a reset; switch it off and on",
            catalogue.SENSOR_UNUSABLE,
        )

    def _restart_fifo(self) -> None:
        """Empty it through bypass mode, and let it run."""
        write, wish, code = self._registers.write, self._wish, self._rate + 1
        self._begun, self._fresh = b"", True
        if self._model.tagged:
            write(DSO_FIFO_CTRL4, BYPASS)
            write(DSO_FIFO_CTRL3, (code << 4 if wish.gyro else 0) | (code if wish.acc else 0))
            write(DSO_FIFO_CTRL4, CONTINUOUS)
        else:
            write(DS3_FIFO_CTRL5, BYPASS)
            write(DS3_FIFO_CTRL3, NO_DECIMATION_GYRO * wish.gyro | NO_DECIMATION_ACC * wish.acc)
            write(DS3_FIFO_CTRL5, code << 3 | CONTINUOUS)

    def _take_words(self, fill: Fill) -> Batch:
        samples = 0 if fill.overrun else fill.samples
        data = burst(self._registers, DS3_FIFO_DATA_OUT_L, samples, 6 * self._wish.sensors)
        comes_next = int.from_bytes(self._registers.read(DS3_FIFO_STATUS3, 2), "little") & DS3_PATTERN
        lost = fill.overrun or comes_next != 0
        if lost:
            self._restart_fifo()
            data = b""
        words = np.frombuffer(data, dtype="<i2").astype(np.int16).reshape(-1, self._wish.sensors, 3)
        return self._batch(words[:, 0], words[:, -1], lost=lost)

    def _take_tagged(self, fill: Fill) -> Batch:
        if fill.overrun:
            self._begun = b""
        needed = fill.samples * self._wish.sensors - len(self._begun) // DSO_WORD_BYTES
        data = self._begun + burst(self._registers, DSO_FIFO_DATA_OUT_TAG, max(0, needed), DSO_WORD_BYTES)
        acc, gyro, used = untagged(data, self._wish)
        self._begun = data[used * DSO_WORD_BYTES :]
        dropped = used - len(acc if self._wish.acc else gyro) * self._wish.sensors
        return self._batch(gyro, acc, lost=fill.overrun or dropped > 0)

    def _check(self, sound: bool, status: int) -> None:
        if not sound:
            raise SensorError(
                f"{self._registers.where}: the FIFO's status reads {status:#06x}, which no {self.name} says;"
                " check cable and power",
                catalogue.SENSOR_UNUSABLE,
            )

    def _batch(self, gyro: NDArray[np.int16], acc: NDArray[np.int16], *, lost: bool = False) -> Batch:
        return Batch(
            acc=scaled(acc, self._acc_g) if self._wish.acc else None,
            gyro=scaled(gyro, self._gyro_rad_s) if self._wish.gyro else None,
            lost=lost,
        )


def untagged(data: bytes, wish: Wish) -> tuple[NDArray[np.int16], NDArray[np.int16], int]:
    """Acceleration and rotation, each (n, 3), out of whole tagged words, and how many words are done with.

    Where both sensors are wished for, a sample is two neighbouring words of one instant. A last word without its
    partner is not done with; other words without one, and those of other sensors, are passed over.
    """
    words = np.frombuffer(data, dtype=np.uint8).reshape(-1, DSO_WORD_BYTES)
    kinds, instants = words[:, 0] >> 3, words[:, 0] >> 1 & 0x03
    values = words[:, 1:].copy().view("<i2").astype(np.int16)
    none = np.empty((0, 3), dtype=np.int16)
    if not (wish.acc and wish.gyro):
        chosen = values[kinds == (TAG_ACC if wish.acc else TAG_GYRO)]
        return (chosen, none, len(words)) if wish.acc else (none, chosen, len(words))
    known = (kinds == TAG_ACC) | (kinds == TAG_GYRO)
    together = known[:-1] & known[1:] & (kinds[:-1] != kinds[1:]) & (instants[:-1] == instants[1:])
    firsts = _apart(np.flatnonzero(together).tolist())
    gyro_first = kinds[firsts] == TAG_GYRO
    acc, gyro = values[np.where(gyro_first, firsts + 1, firsts)], values[np.where(gyro_first, firsts, firsts + 1)]
    last = len(words) - 1
    waits = last >= 0 and bool(known[last]) and (len(firsts) == 0 or int(firsts[-1]) + 1 < last)
    return acc, gyro, len(words) - int(waits)


def _apart(firsts: Sequence[int]) -> NDArray[np.int64]:
    """Of ascending places, those at least two apart: no word is part of two samples."""
    kept: list[int] = []
    for each in firsts:
        if not kept or each > kept[-1] + 1:
            kept.append(each)
    return np.array(kept, dtype=np.int64)
