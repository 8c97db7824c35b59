"""A chip on an I2C bus through the kernel's ioctls: what is asked of the kernel, byte for byte, and what it says."""

import ctypes
import errno
import os
from pathlib import Path

import pytest

from mekt import catalogue
from mekt.errors import SensorError
from sensors.i2c import LONGEST_READ, I2cDevice, Message, SmbusCall, Transaction, bus_path, buses
from tests.sensors.i2c_bench import SMBUS_FUNCTIONS, Bench, FakeMpu


def opened(bench: Bench, address: int = 0x68, bus: str = "1") -> I2cDevice:
    device = I2cDevice(bus, address, root=bench.folder, ioctl=bench.ioctl)
    device.open()
    return device


def told(error: pytest.ExceptionInfo[SensorError]) -> str:
    assert error.value.entry is catalogue.SENSOR_UNUSABLE
    return str(error.value)


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="Mekt needs 64 bits")
def test_structures_lie_in_memory_as_the_kernel_reads_them() -> None:
    assert [(ctypes.sizeof(each)) for each in (Message, Transaction, SmbusCall)] == [16, 16, 16]
    offsets = [getattr(Message, name).offset for name in ("addr", "flags", "len", "buf")]
    assert offsets == [0, 2, 4, 8]
    assert [getattr(Transaction, name).offset for name in ("msgs", "nmsgs")] == [0, 8]
    assert [getattr(SmbusCall, name).offset for name in ("read_write", "command", "size", "data")] == [0, 1, 4, 8]


def test_a_read_sends_the_register_and_reads_on_in_one_transaction(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    device = opened(bench)
    assert device.read(0x75, 1) == b"\x68"
    assert device.longest == LONGEST_READ
    device.write(0x19, 7)
    assert device.read(0x18, 3) == b"\x00\x07\x00"
    assert bench.trace == [
        (0x68, "W", b"\x75"),
        (0x68, "R", b"\x68"),
        (0x68, "W", b"\x19\x07"),
        (0x68, "W", b"\x18"),
        (0x68, "R", b"\x00\x07\x00"),
    ]


def test_an_adapter_that_speaks_only_smbus_reads_and_writes_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path, functions=SMBUS_FUNCTIONS)
    bench.plug(0x68, FakeMpu())
    device = opened(bench)
    device.write(0x19, 7)
    assert device.read(0x18, 3) == b"\x00\x07\x00"
    assert device.longest == 32 and len(device.read(0x00, 32)) == 32
    assert bench.trace[0] == (0x68, "W", b"\x19\x07")


def test_an_adapter_that_can_do_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SensorError) as caught:
        opened(Bench(tmp_path, functions=0x00010000))
    assert "neither I2C transactions nor SMBus block reads" in told(caught)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EREMOTEIO, "check cable, power and address"),
        (errno.ENXIO, "check cable, power and address"),
        (errno.ETIMEDOUT, "pull-up resistors"),
        (errno.EIO, "check cable and power"),
        (errno.EACCES, "usermod -aG i2c"),
        (errno.EPERM, "usermod -aG i2c"),
        (errno.ENODEV, "modprobe i2c-dev"),
        (errno.EBUSY, "a driver of the kernel has this chip"),
        (None, "check cable and power"),
    ],
)
def test_what_the_kernel_says_is_told_with_place_and_remedy(tmp_path: Path, number: int | None, remedy: str) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    device = opened(bench)
    bench.failures.append(errno.EPROTO if number is None else number)
    with pytest.raises(SensorError) as caught:
        device.read(0x75, 1)
    assert remedy in told(caught)
    assert str(caught.value).startswith("I2C bus 1, address 0x68: ")
    assert device.read(0x75, 1) == b"\x68"


def test_an_address_at_which_nothing_is_does_not_answer(tmp_path: Path) -> None:
    device = opened(Bench(tmp_path), 0x69)
    for act in (lambda: device.read(0x75, 1), lambda: device.write(0x6B, 0)):
        with pytest.raises(SensorError, match="nothing answers there"):
            act()


def test_a_bus_that_another_master_has_is_asked_again_but_not_for_ever(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    device = opened(bench)
    bench.failures.extend([errno.EAGAIN, errno.EINTR, errno.EAGAIN])
    assert device.read(0x75, 1) == b"\x68"
    bench.failures.extend([errno.EAGAIN] * 4)
    with pytest.raises(SensorError, match=os.strerror(errno.EAGAIN)):
        device.read(0x75, 1)
    assert not bench.failures


def test_a_chip_that_a_driver_has_is_left_alone_and_no_file_stays_open(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    bench.bound.add(0x68)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(SensorError) as caught:
        opened(bench)
    assert "use it through that" in told(caught)
    assert bench.trace == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_block_that_comes_short_is_an_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path, functions=SMBUS_FUNCTIONS)
    bench.plug(0x68, FakeMpu())

    def short(file: int, request: int, argument: object) -> int:
        done = bench.ioctl(file, request, argument)
        if isinstance(argument, SmbusCall):
            argument.data[0] = 2
        return done

    device = I2cDevice("1", 0x68, root=tmp_path, ioctl=short)
    device.open()
    with pytest.raises(SensorError) as caught:
        device.read(0x3B, 14)
    assert "2 bytes came of 14" in told(caught)


def test_a_device_that_is_not_open_is_misused_and_closing_twice_does_no_harm(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    device = opened(bench)
    device.close()
    device.close()
    with pytest.raises(SensorError) as caught:
        device.read(0x75, 1)
    assert caught.value.entry is catalogue.SOURCE_MISUSED


def test_a_file_that_is_no_bus_is_refused_by_the_real_kernel() -> None:
    with pytest.raises(SensorError, match=os.strerror(errno.ENOTTY)):
        I2cDevice("/dev/null", 0x68).open()
    with pytest.raises(SensorError, match="modprobe i2c-dev"):
        I2cDevice("/dev/there-is-no-such-bus", 0x68).open()


def test_a_bus_is_told_by_number_path_or_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path, adapter="bcm2835 (i2c@7e804000)")
    bench.add_bus(11, "CP2112 SMBus Bridge on hidraw0")
    assert buses(tmp_path) == {1: "bcm2835 (i2c@7e804000)", 11: "CP2112 SMBus Bridge on hidraw0"}
    assert bus_path("7", tmp_path) == tmp_path / "dev" / "i2c-7"
    assert bus_path("/dev/i2c-3", tmp_path) == Path("/dev/i2c-3")
    assert bus_path("CP2112 SMBus Bridge on hidraw0", tmp_path) == tmp_path / "dev" / "i2c-11"
    bench.plug(0x68, FakeMpu())
    assert opened(bench, bus="CP2112 SMBus Bridge on hidraw0").read(0x75, 1) == b"\x68"


def test_an_adapter_that_comes_back_under_another_number_is_found_by_its_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.add_bus(11, "usb")
    bench.plug(0x68, FakeMpu())
    device = opened(bench, bus="usb")
    device.close()
    for path in (tmp_path / "sys/class/i2c-dev/i2c-11/name", tmp_path / "dev/i2c-11"):
        path.unlink()
    with pytest.raises(SensorError, match="no bus has that name"):
        device.open()
    bench.add_bus(4, "usb")
    device.open()
    assert device.read(0x75, 1) == b"\x68"


def test_a_name_that_no_bus_or_several_have_is_explained(tmp_path: Path) -> None:
    bench = Bench(tmp_path, adapter="one")
    with pytest.raises(SensorError) as caught:
        bus_path("two", tmp_path)
    assert "no bus has that name; name one of these by its number or name: 1 (one)" in told(caught)
    bench.add_bus(2, "one")
    with pytest.raises(SensorError, match=r"several buses have that name.*1 \(one\), 2 \(one\)"):
        bus_path("one", tmp_path)
    with pytest.raises(SensorError, match="or name: none"):
        bus_path("one", tmp_path / "nothing")
