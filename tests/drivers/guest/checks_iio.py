"""IIO devices: accelerometer and gyroscope of a HID sensor hub by their buffers, and a chip on I2C that is polled."""

import io
import itertools
import json
import logging
import math
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mekt.errors import SensorError
from mekt.process import Stop
from sensors.checkup import run_check
from sensors.iio.source import found
from tests.drivers.guest.motion_chip import OTHER, Registers, bus_number, forget, introduce
from tests.drivers.guest.reading import Record, failure, gathered, near, opened, reopened, source_of
from tests.drivers.guest.sensor_hub import SensorHub, accelerometer, gyroscope
from tests.drivers.guest.waiting import iio_device, iio_devices, until

ACC = """
[[sensors]]
kind = "iio"
name = "accel_3d"
modalities = ["acc"]
rate_hz = 50
access = "buffer"
"""
GYRO = """
[[sensors]]
kind = "iio"
name = "gyro_3d"
modalities = ["gyro"]
rate_hz = 50
access = "buffer"
"""


def counting(number: int) -> tuple[int, int, int]:
    """-0.25 g, the number of the sample in thousandths of g, 1 g."""
    return -250, number % 2000 - 1000, 1000


@pytest.fixture
def hub() -> Iterator[SensorHub]:
    """An accelerometer that counts its samples, and a gyroscope that turns by 90 degrees a second."""
    with SensorHub([accelerometer(counting), gyroscope(lambda number: (9000, -9000, number % 100))]) as made:
        iio_device("accel_3d")
        iio_device("gyro_3d")
        yield made


def steps(values: NDArray[np.float32]) -> set[int]:
    """From one sample to the next, how much further the accelerometer had counted."""
    counted = [round(float(each) * 1000) for each in values[:, 1]]
    return {(after - before) % 2000 for before, after in itertools.pairwise(counted)}


def test_every_sample_of_the_accelerometer_comes_in_g_with_the_kernels_own_time(
    hub: SensorHub, record_property: Record
) -> None:
    with opened(ACC) as source:
        read = gathered(source, 250)
    widest_s = max(after_s - before_s for before_s, after_s in hub.sensors[0].sent_s)
    record_property("handed over within, ms", round(widest_s * 1000, 2))
    record_property("acc", read.figures("acc"))
    assert near(read.values["acc"][:, [0, 2]], [-0.25, 1.0], 1e-4)
    assert steps(read.values["acc"]) == {1}
    # The driver stamps a sample while it is handed over, however busy the machine is.
    first = round(float(read.values["acc"][0, 1]) * 1000) + 1000
    for number, t_s in enumerate(read.t_s["acc"], first):
        before_s, after_s = hub.sensors[0].sent_s[number]
        assert before_s <= t_s <= after_s, f"sample {number} bears another time than that at which it came"
    assert 45.0 < read.rate_hz("acc") < 55.0
    # Some samples at a time, as batch_s says: the processor sleeps in between.
    assert read.calls < 125


def test_the_device_is_set_to_the_rate_of_the_settings_and_put_back_when_it_is_closed(
    hub: SensorHub, record_property: Record
) -> None:
    device = iio_device("accel_3d")
    files = ("in_accel_sampling_frequency", "current_timestamp_clock", "buffer/enable", "scan_elements/in_accel_x_en")
    before = {name: (device / name).read_text().strip() for name in files}
    with opened(ACC.replace("rate_hz = 50", "rate_hz = 20")) as source:
        read = gathered(source, 60)
        assert hub.sensors[0].interval_ms == 50
    record_property("acc", read.figures("acc"))
    assert 18.0 < read.rate_hz("acc") < 22.0
    assert {name: (device / name).read_text().strip() for name in files} == before
    until(lambda: not hub.sensors[0].on, "the accelerometer still runs")


@pytest.mark.parametrize(("up", "code"), [(1000, 0), (20, 5)])
def test_who_installs_it_is_told_whether_it_lies_still_and_feels_gravity(
    up: int, code: int, record_property: Record, tmp_path: Path
) -> None:
    config, out = tmp_path / "device.toml", io.StringIO()
    config.write_text(ACC)
    with SensorHub([accelerometer(lambda number: (number % 3, 0, up))]):
        iio_device("accel_3d")
        assert run_check(config, modalities=(), seconds=4.0, as_json=True, out=out, stop=Stop()) == code
    checks = {each["name"]: each for each in json.loads(out.getvalue())["checks"]}
    record_property("checks", [f"{each['mark']} {each['name']}: {each['seen']}" for each in checks.values()])
    assert checks["acc at rest"]["mark"] == ("FAILED" if code else "ok")
    assert checks["acc at rest"]["seen"].startswith(f"|g| = {up / 1000:.3f}")
    # 16 bits of a thousandth of g.
    assert "reaches +-32.77 g" in checks["acc range"]["seen"]
    until(lambda: not iio_devices("accel_3d"), "the accelerometer is still there")


def test_two_devices_of_one_hub_tell_times_of_one_clock(hub: SensorHub, record_property: Record) -> None:
    with opened(ACC) as acc, opened(GYRO) as gyro:
        gathered(acc, 10)
        gathered(gyro, 10)
        accelerations, rotations = gathered(acc, 50), gathered(gyro, 100)
    record_property("gyro", rotations.figures("gyro"))
    assert near(rotations.values["gyro"][:, :2], [math.pi / 2, -math.pi / 2], 1e-3)
    # Both were read in the same seconds.
    assert rotations.t_s["gyro"][0] < accelerations.t_s["acc"][-1] < rotations.t_s["gyro"][-1]


def test_an_accelerometer_that_is_pulled_out_is_told_and_found_again_under_another_number(
    record_property: Record,
) -> None:
    pulled, other = SensorHub([accelerometer(counting)]), SensorHub([gyroscope(lambda number: (0, 0, 0))])
    source = source_of(ACC)
    with pulled, other:
        iio_device("gyro_3d")
        before = iio_device("accel_3d").name
        source.open()
        gathered(source, 50)
        pulled.unplug()
        error, after_s = failure(source)
        record_property("told", f"{error} after {after_s:.1f} s")
        with pytest.raises(SensorError, match="no device"):
            source.open()
        # The gyroscope takes the number that is free.
        other.unplug()
        until(lambda: not iio_devices("gyro_3d"), "the gyroscope is still there")
        other.plug()
        iio_device("gyro_3d")
        pulled.plug()
        record_property("back after, s", round(reopened(source), 2))
        after = iio_device("accel_3d").name
        record_property("before, after", (before, after))
        read = gathered(source, 50)
        source.close()
    assert after != before
    assert near(read.values["acc"][:, [0, 2]], [-0.25, 1.0], 1e-4)


def test_an_accelerometer_that_is_pulled_out_while_nobody_reads_is_closed_without_harm(hub: SensorHub) -> None:
    with opened(ACC) as source:
        gathered(source, 10)
        hub.unplug()
    assert iio_devices("accel_3d") == []


def test_one_that_is_pulled_out_while_a_read_waits_is_told_by_that_read_or_the_next(
    hub: SensorHub, record_property: Record
) -> None:
    with opened(ACC) as source:
        gathered(source, 10)
        timer = threading.Timer(0.5, hub.unplug)
        timer.start()
        error, after_s = failure(source, timeout_s=3.0)
        timer.join()
    record_property("told", f"{error} after {after_s:.1f} s")


def test_a_device_that_another_program_reads_is_refused_with_what_to_do_and_then_opened(hub: SensorHub) -> None:
    source = source_of(ACC)
    with opened(ACC) as other:
        gathered(other, 10)
        with pytest.raises(SensorError, match="another program"):
            source.open()
        gathered(other, 10)
    source.open()
    gathered(source, 10)
    source.close()


def test_without_a_buffer_the_attributes_are_polled(hub: SensorHub, record_property: Record) -> None:
    with opened(ACC.replace('"buffer"', '"polled"').replace("rate_hz = 50", "rate_hz = 5")) as source:
        read = gathered(source, 15)
    record_property("acc", read.figures("acc"))
    assert near(read.values["acc"][:, [0, 2]], [-0.25, 1.0], 1e-4)


def test_devices_are_found_with_tables_that_open_them(hub: SensorHub, record_property: Record) -> None:
    there = found()
    record_property("found", [each.text for each in there])
    assert {each.name for each in there} == {"accel_3d", "gyro_3d"}
    for each in there:
        with opened(each.toml) as source:
            gathered(source, 10)


def test_a_chip_whose_interrupt_is_not_connected_is_polled_and_comes_back_with_its_driver(
    record_property: Record, caplog: pytest.LogCaptureFixture
) -> None:
    registers = Registers(bus_number(), OTHER)
    # A BMI160 (BST-BMI160-DS000, section 2.11): identity, 100 Hz, 2 g, 2000 degrees a second.
    registers.write(0x00, b"\xd1")
    registers.write(0x40, b"\x28\x03\x28\x00")
    registers.write(0x0C, struct.pack("<6h", 1640, -1640, 0, 16384, -8192, 4096))
    introduce("bmi160", OTHER)
    try:
        table = ACC.replace("accel_3d", "bmi160").replace('"acc"', '"acc", "gyro"').replace('"buffer"', '"any"')
        with caplog.at_level(logging.WARNING), opened(table.replace("rate_hz = 50", "rate_hz = 20")) as source:
            read = gathered(source, 40)
            record_property("acc", read.figures("acc"))
            record_property("means", {name: each.mean(axis=0).round(4).tolist() for name, each in read.values.items()})
            # To the digits of the driver's scale.
            assert near(read.values["acc"], [1.0, -0.5, 0.25], 0.005)
            assert near(np.degrees(read.values["gyro"]), [100.0, -100.0, 0.0], 0.5)
            forget(OTHER)
            error, after_s = failure(source)
            record_property("told", f"{error} after {after_s:.1f} s")
            introduce("bmi160", OTHER)
            reopened(source)
            gathered(source, 10)
        assert "it is polled" in caplog.text
    finally:
        forget(OTHER)
        registers.write(0x00, b"\0")
        registers.close()
