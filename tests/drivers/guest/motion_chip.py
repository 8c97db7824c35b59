"""An MPU-6050 posed by the kernel's i2c-stub: its registers, written over the very bus that a source reads.

Registers are those of the MPU-6000/MPU-6050 Register Map and Descriptions, RM-MPU-6000A. The bus is reached by the
ioctls of Documentation/i2c/dev-interface.rst; i2c-stub speaks SMBus alone (Documentation/i2c/i2c-stub.rst).
"""

import ctypes
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

I2C_SLAVE, I2C_FUNCS, I2C_SMBUS = 0x0703, 0x0705, 0x0720
READ, WRITE = 1, 0
I2C_BLOCK_DATA = 8
BLOCK_BYTES = 32
ADDRESS = 0x68
WHO_AM_I, MEASURED = 0x75, 0x3B
PWR_MGMT_1, SLEEP = 0x6B, 0x40

# Accelerometer x, y, z, temperature, gyroscope x, y, z, as signed counts.
Measured = tuple[int, int, int, int, int, int, int]


class _Transfer(ctypes.Structure):
    """struct i2c_smbus_ioctl_data of <linux/i2c-dev.h>."""

    _fields_ = (
        ("read_write", ctypes.c_uint8),
        ("command", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
    )


def bus_number() -> int:
    """The number of i2c-stub's bus."""
    for path in Path("/sys/bus/i2c/devices").glob("i2c-*"):
        if (path / "name").read_text().strip() == "SMBus stub driver":
            return int(path.name.removeprefix("i2c-"))
    raise AssertionError("i2c-stub has made no bus")


class Registers:
    """The registers of one chip, by blocks."""

    def __init__(self, bus: int, address: int = ADDRESS) -> None:
        self._fd = os.open(f"/dev/i2c-{bus}", os.O_RDWR)
        fcntl.ioctl(self._fd, I2C_SLAVE, address)

    def functions(self) -> int:
        """What the bus can do, as I2C_FUNC_ bits."""
        there = bytearray(8)
        fcntl.ioctl(self._fd, I2C_FUNCS, there)
        return int.from_bytes(there, "little")

    def write(self, register: int, data: bytes) -> None:
        """Up to 32 bytes from this register on, in one transfer."""
        self._transfer(WRITE, register, bytes([len(data)]) + data)

    def read(self, register: int, size: int) -> bytes:
        """Up to 32 bytes from this register on, in one transfer."""
        block = self._transfer(READ, register, bytes([size]))
        return block[1 : 1 + block[0]]

    def close(self) -> None:
        """Let the bus go."""
        os.close(self._fd)

    def _transfer(self, way: int, register: int, block: bytes) -> bytes:
        data = ctypes.create_string_buffer(block, BLOCK_BYTES + 2)
        transfer = _Transfer(way, register, I2C_BLOCK_DATA, ctypes.addressof(data))
        fcntl.ioctl(self._fd, I2C_SMBUS, transfer)
        return data.raw


class MotionChip:
    """A chip that measures anew every `interval_s` while the context lasts; `measured` gives what, by number."""

    def __init__(self, registers: Registers, measured: Callable[[int], Measured], interval_s: float) -> None:
        self.registers = registers
        self._measured, self._interval_s = measured, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        registers.write(WHO_AM_I, bytes([ADDRESS]))
        # As it is after power-on.
        registers.write(PWR_MGMT_1, bytes([SLEEP]))
        self._measure(0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _measure(self, number: int) -> None:
        # One transfer, as in the chip: a reader never sees half of a measurement.
        self.registers.write(MEASURED, struct.pack(">7h", *self._measured(number)))

    def _run(self) -> None:
        began_s = time.monotonic()
        number = 0
        while not self._stop.wait(max(0.0, began_s + number * self._interval_s - time.monotonic())):
            self._measure(number)
            number += 1
