"""Analog Devices' accelerometer, register by register."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mekt.errors import SensorError
from sensors.adxl345 import Adxl345
from sensors.chip import Wish
from sensors.i2c import I2cDevice
from tests.sensors.i2c_bench import SMBUS_FUNCTIONS, Bench, FakeAdxl345, counts

AT = 0x53


def wish(rate_hz: float = 50.0, acc_range_g: Any = 8) -> Wish:
    return Wish(acc=True, gyro=False, rate_hz=rate_hz, acc_range_g=acc_range_g, gyro_range_dps=1000)


def chip(bench: Bench, fake: FakeAdxl345, wanted: Wish | None = None) -> Adxl345:
    bench.plug(AT, fake)
    device = I2cDevice("1", AT, root=bench.folder, ioctl=bench.ioctl)
    device.open()
    return Adxl345(device, wanted or wish(), bench.wait)


def test_it_is_set_up_by_exactly_these_writes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    chip(bench, FakeAdxl345()).start(fifo=True)
    assert bench.settings_written(AT) == [
        (0x2D, 0x00),  # standby
        (0x38, 0x00),  # FIFO emptied
        (0x2E, 0x00),  # no interrupts
        (0x1E, 0x00),  # no offsets
        (0x1F, 0x00),
        (0x20, 0x00),
        (0x2C, 0x09),  # 50 Hz, normal power
        (0x31, 0x0A),  # full resolution, 8 g
        (0x2D, 0x08),  # measuring
        (0x38, 0x80),  # FIFO as a stream
    ]


def test_another_identity_is_told(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeAdxl345()
    adxl = chip(bench, fake)
    adxl.identify()
    fake.registers[0x00] = 0x00
    with pytest.raises(SensorError, match="no ADXL345: its identity reads 0x00, expected 0xe5"):
        adxl.identify()


@pytest.mark.parametrize(("wanted_hz", "has_hz"), [(1, 6.25), (50, 50.0), (60, 50.0), (90, 100.0), (2000, 800.0)])
def test_the_rate_is_the_nearest_of_the_chips(tmp_path: Path, wanted_hz: float, has_hz: float) -> None:
    fake = FakeAdxl345()
    adxl = chip(Bench(tmp_path), fake, wish(wanted_hz))
    adxl.start(fifo=False)
    assert adxl.rate_hz == has_hz == fake.rate_hz()


@pytest.mark.parametrize(("acc_g", "bits"), [(2, 0), (4, 1), (8, 2), (16, 3)])
def test_in_all_ranges_256_counts_are_one_g(tmp_path: Path, acc_g: int, bits: int) -> None:
    bench = Bench(tmp_path)
    adxl = chip(bench, FakeAdxl345(source=lambda k: (256, -512, 4095, 0, 0, 0)), wish(acc_range_g=acc_g))
    adxl.start(fifo=True)
    assert dict(bench.settings_written(AT))[0x31] == 0x08 | bits
    bench.wait(0.03)
    batch = adxl.take(adxl.fill())
    assert batch.acc is not None and batch.gyro is None
    np.testing.assert_array_equal(batch.acc[0], np.array([1, -2, 4095 / 256], dtype=np.float32))


@pytest.mark.parametrize("functions", [1, SMBUS_FUNCTIONS])
def test_the_fifo_is_fetched_sample_by_sample_in_order(tmp_path: Path, functions: int) -> None:
    bench, fake = Bench(tmp_path, functions=functions), FakeAdxl345()
    adxl = chip(bench, fake)
    adxl.start(fifo=True)
    before = len(fake.taken_s)
    bench.wait(0.41)
    fill = adxl.fill()
    batch = adxl.take(fill)
    assert (fill.samples, fill.overrun, batch.lost) == (21, False, False)
    assert batch.acc is not None
    # The first one was at the output already.
    np.testing.assert_allclose(batch.acc, np.array([counts(before + k)[:3] for k in range(21)]) / 256)


def test_after_an_overrun_the_newest_samples_are_kept_and_the_loss_is_told(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeAdxl345()
    adxl = chip(bench, fake)
    adxl.start(fifo=True)
    bench.wait(5)
    fill = adxl.fill()
    newest = len(fake.taken_s) - 1
    batch = adxl.take(fill)
    assert batch.acc is not None and (fill.samples, batch.lost) == (33, True)
    np.testing.assert_allclose(batch.acc[:, 0] * 256, [counts(newest - 32 + k)[0] for k in range(33)])
    bench.wait(0.1)
    assert not adxl.take(adxl.fill()).lost


def test_a_count_beyond_the_fifo_is_an_error(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeAdxl345()
    adxl = chip(bench, fake)
    fake.load = lambda register: 0xFF  # type: ignore[method-assign]
    with pytest.raises(SensorError, match="63 samples in a FIFO of 32"):
        adxl.fill()


def test_without_fifo_a_sample_is_ready_once_and_read_at_once(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeAdxl345()
    adxl = chip(bench, fake)
    adxl.start(fifo=False)
    adxl.look()
    assert adxl.look() is None
    bench.wait(0.02)
    batch = adxl.look()
    assert batch is not None and batch.acc is not None
    np.testing.assert_allclose(batch.acc[0] * 256, counts(len(fake.taken_s) - 1)[:3])
    assert adxl.look() is None
    # One that comes between flag and data is seen by its data.
    bench.wait(0.02)
    load = fake.load
    fake.load = lambda register: 0 if register == 0x30 else load(register)  # type: ignore[method-assign]
    assert adxl.look() is not None and adxl.look() is None


def test_it_is_put_into_standby(tmp_path: Path) -> None:
    fake = FakeAdxl345()
    adxl = chip(Bench(tmp_path), fake)
    adxl.start(fifo=True)
    adxl.stop()
    assert fake.rate_hz() == 0


# Table 15 at 2.5 V times table 14 for 3.3 V: x 88.5 to 955.8 counts, y the same downwards, z 110.25 to 1286.25.


@pytest.mark.parametrize(
    ("response", "passed"),
    [
        ((89, -89, 111), (True, True, True)),
        ((88, -88, 110), (False, False, False)),
        ((955, -955, 1286), (True, True, True)),
        ((956, -956, 1287), (False, False, False)),
        ((300, 300, 300), (True, False, True)),
        ((0, 0, 0), (False, False, False)),
    ],
)
def test_a_self_test_compares_each_axis_with_the_data_sheets_limits(
    tmp_path: Path, response: tuple[int, int, int], passed: tuple[bool, bool, bool]
) -> None:
    bench, fake = Bench(tmp_path), FakeAdxl345(source=lambda k: (3, -4, 256, 0, 0, 0))
    fake.response = (*response, 0, 0, 0)
    result = chip(bench, fake).self_test()
    assert tuple(each.passed for each in result.axes) == passed
    np.testing.assert_allclose([each.value * 256 for each in result.axes], response, atol=1e-3)
    assert [each.axis for each in result.axes] == ["acc x", "acc y", "acc z"]
    written = [pair for pair in bench.settings_written(AT) if pair[0] in (0x31, 0x2C)]
    assert written == [(0x2C, 0x0A), (0x31, 0x0B), (0x31, 0x8B), (0x31, 0x0B)]
