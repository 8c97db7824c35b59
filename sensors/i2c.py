"""A chip on an I2C bus of this machine, by its registers.

All that the kernel offers for it is one device file per bus and three ioctls with three small structures (Linux,
Documentation/i2c/dev-interface.rst). They are written out here with the standard library, so that a device needs no
package for its sensors: `smbus2` would save some forty lines, and cost an extra to install and a remedy for whoever
forgot it.

Adapters that are true I2C masters take a write and a read as one transaction (`I2C_RDWR`); those that speak only SMBus,
as on many PCs, read up to 32 bytes at once (`I2C_SMBUS`). Both are used as the adapter says it can.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from mekt import catalogue
from mekt.errors import SensorError

# linux/i2c-dev.h
I2C_SLAVE = 0x0703
I2C_FUNCS = 0x0705
I2C_RDWR = 0x0707
I2C_SMBUS = 0x0720
# linux/i2c.h
I2C_M_RD = 0x0001
I2C_FUNC_I2C = 0x00000001
I2C_FUNC_SMBUS_WRITE_BYTE_DATA = 0x00100000
I2C_FUNC_SMBUS_READ_I2C_BLOCK = 0x04000000
SMBUS_ENOUGH = I2C_FUNC_SMBUS_WRITE_BYTE_DATA | I2C_FUNC_SMBUS_READ_I2C_BLOCK
I2C_SMBUS_WRITE, I2C_SMBUS_READ = 0, 1
I2C_SMBUS_BYTE_DATA, I2C_SMBUS_I2C_BLOCK_DATA = 2, 8
I2C_SMBUS_BLOCK_MAX = 32
# One read of an I2C master: below the limit of every adapter's driver known to have one, and a whole number of the
# frames (6, 7, 12 bytes) of all chips here.
LONGEST_READ = 252
# Another master may win the bus, or a signal come: then the kernel asks for another try.
TRY_AGAIN = {errno.EAGAIN, errno.EINTR}
TRIES, RETRY_S = 4, 0.002
LARGEST_BUS = 10_000

Ioctl = Callable[[int, int, Any], Any]


class Registers(Protocol):
    """A chip as its data sheet sees it: numbered bytes that are read and written."""

    @property
    def where(self) -> str:
        """The chip's place, for people."""

    @property
    def longest(self) -> int:
        """The most bytes that one read gives."""

    def read(self, register: int, count: int) -> bytes:
        """So many bytes, `register` and what follows it as the chip counts on.

        Raises:
            SensorError: when the chip does not answer.
        """

    def write(self, register: int, value: int) -> None:
        """Set one register.

        Raises:
            SensorError: when the chip does not answer.
        """


class Message(ctypes.Structure):
    """`struct i2c_msg`: one direction of a transaction."""

    _fields_ = (
        ("addr", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("len", ctypes.c_uint16),
        ("buf", ctypes.POINTER(ctypes.c_uint8)),
    )


class Transaction(ctypes.Structure):
    """`struct i2c_rdwr_ioctl_data`: messages without a stop in between."""

    _fields_ = (("msgs", ctypes.POINTER(Message)), ("nmsgs", ctypes.c_uint32))


class SmbusCall(ctypes.Structure):
    """`struct i2c_smbus_ioctl_data`; `data` is a union of which a byte, or a length and a block, are used."""

    _fields_ = (
        ("read_write", ctypes.c_uint8),
        ("command", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("data", ctypes.POINTER(ctypes.c_uint8)),
    )


class I2cDevice:
    """One address on one bus; nothing happens before `open`. It is opened again after `close`.

    `bus` is a number, a device file, or the name of the adapter as the kernel tells it, which stays the same when
    numbers change, as they do for adapters on USB.
    """

    def __init__(self, bus: str, address: int, *, root: Path = Path("/"), ioctl: Ioctl = fcntl.ioctl) -> None:
        """`root` is where `/dev` and `/sys` are looked for."""
        self._bus, self._address, self._root, self._ioctl = bus, address, root, ioctl
        self._file: int | None = None
        self._is_master = True

    @property
    def where(self) -> str:
        """Bus and address, for people."""
        return f"I2C bus {self._bus}, address {self._address:#04x}"

    @property
    def longest(self) -> int:
        """The most bytes that one read gives."""
        return LONGEST_READ if self._is_master else I2C_SMBUS_BLOCK_MAX

    def open(self) -> None:
        """Take hold of the address.

        Raises:
            SensorError: when there is no such bus, no right to use it, or a kernel driver has the address already.
        """
        self.close()
        path = bus_path(self._bus, self._root)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise self._failed(error) from error
        try:
            # I2C_RDWR would go past a driver that has bound the address, and disturb it; this asks.
            self._call(I2C_SLAVE, self._address)
            able = ctypes.c_ulong()
            self._call(I2C_FUNCS, able)
        except SensorError:
            self.close()
            raise
        self._is_master = bool(able.value & I2C_FUNC_I2C)
        if not self._is_master and able.value & SMBUS_ENOUGH != SMBUS_ENOUGH:
            self.close()
            raise SensorError(
                f"{self.where}: the adapter can neither I2C transactions nor SMBus block reads; use another bus",
                catalogue.SENSOR_UNUSABLE,
            )

    def close(self) -> None:
        """Let the bus go; harmless when it is not held."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def read(self, register: int, count: int) -> bytes:
        """Up to `longest` bytes from `register` on, in one transaction.

        Raises:
            SensorError: when the chip does not answer, or less comes than was asked for.
        """
        assert 1 <= count <= self.longest, f"{count} bytes at once"
        if self._is_master:
            asked, given = (ctypes.c_uint8 * 1)(register), (ctypes.c_uint8 * count)()
            self._transact((0, asked), (I2C_M_RD, given))
            return bytes(given)
        block = (ctypes.c_uint8 * (I2C_SMBUS_BLOCK_MAX + 2))(count)
        self._call(I2C_SMBUS, SmbusCall(I2C_SMBUS_READ, register, I2C_SMBUS_I2C_BLOCK_DATA, block))
        if block[0] != count:
            raise SensorError(
                f"{self.where}: {block[0]} bytes came of {count}; check cable and pull-up resistors",
                catalogue.SENSOR_UNUSABLE,
            )
        return bytes(block[1 : 1 + count])

    def write(self, register: int, value: int) -> None:
        """Set one register.

        Raises:
            SensorError: when the chip does not answer.
        """
        if self._is_master:
            self._transact((0, (ctypes.c_uint8 * 2)(register, value)))
        else:
            data = (ctypes.c_uint8 * (I2C_SMBUS_BLOCK_MAX + 2))(value)
            self._call(I2C_SMBUS, SmbusCall(I2C_SMBUS_WRITE, register, I2C_SMBUS_BYTE_DATA, data))

    def _transact(self, *parts: "tuple[int, ctypes.Array[ctypes.c_uint8]]") -> None:
        pointer = ctypes.POINTER(ctypes.c_uint8)
        messages = (Message * len(parts))(
            *(Message(self._address, flags, len(data), ctypes.cast(data, pointer)) for flags, data in parts)
        )
        self._call(I2C_RDWR, Transaction(messages, len(parts)))

    def _call(self, request: int, argument: Any) -> None:
        if self._file is None:
            raise SensorError(f"{self.where}: not opened; open a source before it is read", catalogue.SOURCE_MISUSED)
        for attempt in range(TRIES):
            try:
                self._ioctl(self._file, request, argument)
                return
            except OSError as error:
                if error.errno not in TRY_AGAIN or attempt + 1 == TRIES:
                    raise self._failed(error) from error
                time.sleep(RETRY_S)

    def _failed(self, error: OSError) -> SensorError:
        return SensorError(f"{self.where}: {error.strerror}; {_remedy(error.errno)}", catalogue.SENSOR_UNUSABLE)


def buses(root: Path = Path("/")) -> dict[int, str]:
    """The numbers of this machine's I2C buses that programs may open, with their adapters' names."""
    there: dict[int, str] = {}
    for folder in (root / "sys" / "class" / "i2c-dev").glob("i2c-*"):
        number = folder.name.removeprefix("i2c-")
        if number.isdecimal() and int(number) < LARGEST_BUS:
            with contextlib.suppress(OSError):
                there[int(number)] = (folder / "name").read_text(encoding="utf-8", errors="replace").strip()[:200]
    return dict(sorted(there.items()))


def bus_path(bus: str, root: Path = Path("/")) -> Path:
    """The device file of a bus, told by number, path or adapter's name.

    Raises:
        SensorError: when no adapter has that name, or several have.
    """
    if bus.startswith("/"):
        return Path(bus)
    if bus.isdecimal():
        return root / "dev" / f"i2c-{int(bus)}"
    there = buses(root)
    named = [number for number, name in there.items() if name == bus]
    if len(named) != 1:
        seen = ", ".join(f"{number} ({name})" for number, name in there.items()) or "none"
        which = "several buses have that name" if named else "no bus has that name"
        raise SensorError(
            f"I2C bus {bus}: {which}; name one of these by its number or name: {seen}", catalogue.SENSOR_UNUSABLE
        )
    return root / "dev" / f"i2c-{named[0]}"


def _remedy(number: int | None) -> str:
    match number:
        case errno.ENOENT | errno.ENODEV:
            return (
                "switch the bus on (Raspberry Pi: `sudo raspi-config nonint do_i2c 0`), load the module"
                " (`sudo modprobe i2c-dev`), or name another bus"
            )
        case errno.EACCES | errno.EPERM:
            return "give the user that Mekt runs as the right to use it (`sudo usermod -aG i2c USER`)"
        case errno.EBUSY:
            return "a driver of the kernel has this chip: use it through that, or unbind the driver"
        case errno.EREMOTEIO | errno.ENXIO:
            return "nothing answers there: check cable, power and address"
        case errno.ETIMEDOUT:
            return "the bus is held down: check cable and pull-up resistors, or switch the chip off and on"
        case _:
            return "check cable and power"
