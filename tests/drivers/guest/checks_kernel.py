"""The rig itself: each driver gives what its fake device was told, by the kernel's interface alone."""

import fcntl
import itertools
import mmap
import os
import select
import struct
import time

from tests.drivers.guest.motion_chip import ADDRESS, MEASURED, WHO_AM_I, Registers, bus_number
from tests.drivers.guest.reading import Record
from tests.drivers.guest.sensor_hub import SensorHub, accelerometer
from tests.drivers.guest.waiting import iio_device, until

G = 9.80665


def test_an_accelerometer_behind_uhid_is_an_iio_device_with_raw_values_and_a_scale(record_property: Record) -> None:
    with SensorHub([accelerometer(lambda number: (-250, 500, 1000))]):
        device = iio_device("accel_3d")
        until(lambda: (device / "scan_elements").is_dir() or (device / "buffer").is_dir(), "no buffer appeared")
        scale = float((device / "in_accel_scale").read_text())
        began_s = time.monotonic()
        raw = [int((device / f"in_accel_{axis}_raw").read_text()) for axis in "xyz"]
        record_property("three raw values, s", round(time.monotonic() - began_s, 2))
        assert [round(value * scale / G, 3) for value in raw] == [-0.25, 0.5, 1.0]
        record_property("files", sorted(path.name for path in device.iterdir()))


def test_the_buffer_of_the_accelerometer_gives_every_sample_with_times_of_the_monotonic_clock(
    record_property: Record,
) -> None:
    with SensorHub([accelerometer(lambda number: (-250, number % 1000, 1000))]) as hub:
        device = iio_device("accel_3d")
        until(lambda: (device / "scan_elements").is_dir(), "no buffer appeared")
        (device / "current_timestamp_clock").write_text("monotonic")
        (device / "in_accel_sampling_frequency").write_text("50")
        for path in (device / "scan_elements").glob("*_en"):
            path.write_text("1")
        types = {path.name: path.read_text().strip() for path in (device / "scan_elements").glob("*_type")}
        record_property("types", types)
        (device / "buffer/length").write_text("256")
        (device / "buffer/watermark").write_text("10")
        (device / "buffer/enable").write_text("1")
        fd = os.open(f"/dev/{device.name}", os.O_RDONLY | os.O_NONBLOCK)
        rows: list[tuple[int, ...]] = []
        wakes = 0
        try:
            while len(rows) < 100:
                readable, _, _ = select.select([fd], [], [], 20.0)
                assert readable, (
                    f"nothing came after {len(rows)} rows: {hub} {(device / 'trigger/current_trigger').read_text()}"
                )
                wakes += 1
                rows += list(struct.iter_unpack("<iii4xq", os.read(fd, 24 * 64)))
        finally:
            os.close(fd)
            (device / "buffer/enable").write_text("0")
        low = [[((value & 0xFFFF) ^ 0x8000) - 0x8000 for value in row[:3]] for row in rows]
        assert {(x, z) for x, _, z in low} == {(-250, 1000)}
        steps = [(after[1] - before[1]) % 1000 for before, after in itertools.pairwise(low)]
        assert set(steps) == {1}
        t_s = [row[3] / 1e9 for row in rows]
        assert abs(t_s[-1] - time.monotonic()) < 5.0
        record_property("rate_hz", round((len(t_s) - 1) / (t_s[-1] - t_s[0]), 2))
        record_property("wakes", wakes)
        record_property("garbage above 16 bits", sum(row[0] >> 16 not in (0, -1) for row in rows))


def test_i2c_stub_holds_the_registers_of_a_motion_chip(record_property: Record) -> None:
    registers = Registers(bus_number())
    record_property("functions", hex(registers.functions()))
    measured = struct.pack(">7h", 8192, -16384, 16384, -521, 131, -131, 1)
    registers.write(WHO_AM_I, bytes([ADDRESS]))
    registers.write(MEASURED, measured)
    assert registers.read(WHO_AM_I, 1) == bytes([ADDRESS])
    assert registers.read(MEASURED, 14) == measured
    registers.close()


def test_vivid_is_a_camera_that_streams_frames(record_property: Record) -> None:
    fd = os.open("/dev/video0", os.O_RDWR | os.O_NONBLOCK)
    answer = bytearray(104)
    fcntl.ioctl(fd, 0x80685600, answer)  # VIDIOC_QUERYCAP
    driver, card = (bytes(part).split(b"\0")[0].decode() for part in (answer[:16], answer[16:48]))
    assert driver == "vivid"
    record_property("card", card)
    wanted = bytearray(208)
    struct.pack_into("<I4xII4sI", wanted, 0, 1, 320, 180, b"YUYV", 1)
    fcntl.ioctl(fd, 0xC0D05605, wanted)  # VIDIOC_S_FMT
    width, height, fourcc = struct.unpack_from("<II4s", wanted, 8)
    assert (width, height, fourcc) == (320, 180, b"YUYV")
    rate = bytearray(204)
    struct.pack_into("<IIIII", rate, 0, 1, 0, 0, 1, 10)
    fcntl.ioctl(fd, 0xC0CC5616, rate)  # VIDIOC_S_PARM
    request = bytearray(struct.pack("<IIIIB3x", 4, 1, 1, 0, 0))
    fcntl.ioctl(fd, 0xC0145608, request)  # VIDIOC_REQBUFS
    maps = []
    for index in range(struct.unpack_from("<I", request)[0]):
        buffer = bytearray(88)
        struct.pack_into("<II", buffer, 0, index, 1)
        struct.pack_into("<I", buffer, 60, 1)
        fcntl.ioctl(fd, 0xC0585609, buffer)  # VIDIOC_QUERYBUF
        offset, length = struct.unpack_from("<Q", buffer, 64)[0], struct.unpack_from("<I", buffer, 72)[0]
        maps.append(mmap.mmap(fd, length, offset=offset))
        fcntl.ioctl(fd, 0xC058560F, buffer)  # VIDIOC_QBUF
    fcntl.ioctl(fd, 0x40045612, struct.pack("<i", 1))  # VIDIOC_STREAMON
    times: list[float] = []
    sequence: list[int] = []
    while len(times) < 20:
        readable, _, _ = select.select([fd], [], [], 20.0)
        assert readable
        buffer = bytearray(88)
        struct.pack_into("<II", buffer, 0, 0, 1)
        struct.pack_into("<I", buffer, 60, 1)
        fcntl.ioctl(fd, 0xC0585611, buffer)  # VIDIOC_DQBUF
        seconds, micros = struct.unpack_from("<qq", buffer, 24)
        times.append(seconds + micros / 1e6)
        sequence.append(struct.unpack_from("<I", buffer, 56)[0])
        assert len(set(maps[struct.unpack_from("<I", buffer)[0]][:640])) > 8, "a frame of one colour"
        fcntl.ioctl(fd, 0xC058560F, buffer)
    fcntl.ioctl(fd, 0x40045613, struct.pack("<i", 1))  # VIDIOC_STREAMOFF
    assert abs(times[-1] - time.monotonic()) < 5.0
    record_property("rate_hz", round((len(times) - 1) / (times[-1] - times[0]), 2))
    record_property("lost", sequence[-1] - sequence[0] - len(sequence) + 1)
    for each in maps:
        each.close()
    os.close(fd)
