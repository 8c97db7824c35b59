"""An MPU-6050 without a driver of the kernel's, through the kernel's own I2C bus."""

import logging
import math
from collections.abc import Iterator

import numpy as np
import pytest

from mekt.errors import SensorError
from sensors.imu import found
from tests.drivers.guest.motion_chip import ADDRESS, WHO_AM_I, MotionChip, Registers, bus_number, forget, introduce
from tests.drivers.guest.reading import Record, failure, gathered, near, opened, reopened, source_of

IMU = """
[[sensors]]
kind = "imu"
chip = "mpu6050"
bus = "SMBus stub driver"
modalities = ["acc", "gyro"]
rate_hz = 10
acc_range_g = 4
gyro_range_dps = 500
fifo = false
"""


@pytest.fixture
def chip() -> Iterator[MotionChip]:
    """One that lies still on its side, and counts its samples in steps of 0.02 degrees a second."""
    registers = Registers(bus_number())
    with MotionChip(registers, lambda number: ((0.5, -1.0, 0.25), (90.0, -45.0, 0.02 * (number % 1000)))) as made:
        yield made
    registers.close()


def test_a_chip_is_read_in_the_ranges_and_at_the_rate_of_the_settings(
    chip: MotionChip, record_property: Record
) -> None:
    with opened(IMU) as source:
        read = gathered(source, 40)
        assert chip.rate_hz == 10.0
        assert chip.ranges == (4, 500)
    record_property("acc", read.figures("acc"))
    assert near(read.values["acc"], [0.5, -1.0, 0.25], 1e-3)
    assert near(np.degrees(read.values["gyro"][:, :2]), [90.0, -45.0], 0.02)
    numbers = np.rint(np.degrees(read.values["gyro"][:, 2]) / 0.02).astype(int)
    steps = np.diff(numbers) % 1000
    record_property("samples passed over, seen twice", (int((steps - 1).clip(0).sum()), int(np.sum(steps == 0))))
    # The chip's flag is cleared a little after it was read, and a busy machine makes that longer than a period.
    assert np.mean(steps == 1) > 0.7 and steps.max() < 20
    assert 8.0 < read.rate_hz("acc") < 12.0
    assert np.array_equal(read.t_s["acc"], read.t_s["gyro"])
    # It was put to sleep when it was closed.
    assert chip.asleep


def test_a_mounting_turns_the_chips_axes_into_the_bodys(chip: MotionChip) -> None:
    with opened(IMU + "mounting = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]\n") as source:
        read = gathered(source, 5)
    assert near(read.values["acc"], [1.0, 0.5, 0.25], 1e-3)
    assert near(read.values["gyro"][:, :2], [math.pi / 4, math.pi / 2], 1e-3)


def test_one_whose_fifo_gives_nothing_is_asked_for_each_sample(
    chip: MotionChip, record_property: Record, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), opened(IMU.replace("fifo = false", "fifo = true")) as source:
        read = gathered(source, 10)
    record_property("acc", read.figures("acc"))
    assert "its FIFO gives nothing" in caplog.text
    assert near(read.values["acc"], [0.5, -1.0, 0.25], 1e-3)


def test_one_that_ceases_to_measure_is_told_and_started_anew(chip: MotionChip, record_property: Record) -> None:
    with opened(IMU) as source:
        gathered(source, 10)
        chip.brown_out()
        error, after_s = failure(source)
        record_property("told", f"{error} after {after_s:.1f} s")
        record_property("back after, s", round(reopened(source), 2))
        gathered(source, 10)


def test_another_chip_at_its_address_is_refused(chip: MotionChip) -> None:
    chip.registers.write(WHO_AM_I, b"\x00")
    source = source_of(IMU)
    with pytest.raises(SensorError, match="MPU-6050"):
        source.open()
    chip.registers.write(WHO_AM_I, bytes([ADDRESS]))
    reopened(source)
    gathered(source, 3)
    source.close()


def test_an_address_that_a_driver_of_the_kernel_has_is_left_alone(chip: MotionChip, record_property: Record) -> None:
    source = source_of(IMU)
    introduce("dummy", ADDRESS)
    try:
        with pytest.raises(SensorError) as refused:
            source.open()
        assert found(probe=True) == ()
    finally:
        forget(ADDRESS)
    record_property("told", refused.value)
    source.open()
    gathered(source, 3)
    source.close()


def test_it_is_found_on_the_bus_with_a_table_that_opens_it(chip: MotionChip, record_property: Record) -> None:
    assert found() == ()
    [there] = found(probe=True)
    record_property("found", there.text)
    with opened(there.toml) as source:
        gathered(source, 10)
