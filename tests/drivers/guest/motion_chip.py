"""An MPU-6050 posed by the kernel's i2c-stub: its registers, written over the very bus that a source reads.

Registers are those of the MPU-6000/MPU-6050 Register Map and Descriptions, RM-MPU-6000A. The bus is reached by the
ioctls of Documentation/i2c/dev-interface.rst; i2c-stub speaks SMBus alone (Documentation/i2c/i2c-stub.rst).

i2c-stub is memory: it neither measures, nor notices that a flag was read. The chip here does both, for it hears what
is said on the bus from the kernel's trace of it (events/smbus of tracefs).
"""

import contextlib
import ctypes
import fcntl
import os
import re
import select
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

I2C_SLAVE_FORCE, I2C_FUNCS, I2C_SMBUS = 0x0706, 0x0705, 0x0720
READ, WRITE = 1, 0
I2C_BLOCK_DATA = 8
BLOCK_BYTES = 32
ADDRESS, OTHER = 0x68, 0x69
SMPLRT_DIV, GYRO_CONFIG, ACCEL_CONFIG, INT_STATUS, MEASURED = 0x19, 0x1B, 0x1C, 0x3A, 0x3B
PWR_MGMT_1, WHO_AM_I = 0x6B, 0x75
DATA_READY, RESET, SLEEP = 0x01, 0x80, 0x40
# All registers that a reset clears.
FIRST, LAST = 0x0D, 0x74
TRACE = Path("/sys/kernel/tracing")
SAID = re.compile(rb"smbus_(read|write): i2c-\d+ a=0*([0-9a-f]+) f=\w+ c=([0-9a-f]+) \w+(?: l=\d+ \[([0-9a-f-]+)\])?")

Axes = tuple[float, float, float]


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


def introduce(name: str, address: int) -> None:
    """Tell the kernel which chip is there, so that its driver takes it."""
    Path(f"/sys/bus/i2c/devices/i2c-{bus_number()}/new_device").write_text(f"{name} {address:#04x}\n")


def forget(address: int) -> None:
    """Take the chip from its driver, if it has one."""
    with contextlib.suppress(FileNotFoundError):
        Path(f"/sys/bus/i2c/devices/i2c-{bus_number()}/delete_device").write_text(f"{address:#04x}\n")


class Registers:
    """The registers of one chip, by blocks."""

    def __init__(self, bus: int, address: int = ADDRESS) -> None:
        self.address = address
        self._fd = os.open(f"/dev/i2c-{bus}", os.O_RDWR)
        # A driver of the kernel's may have the chip, which this is.
        fcntl.ioctl(self._fd, I2C_SLAVE_FORCE, address)

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
    """A chip that measures while the context lasts and it is awake, at the rate and in the ranges that it was set to.

    `measured` gives acceleration (g) and rotation (degrees per second) by the number of the sample since it woke up.
    """

    def __init__(self, registers: Registers, measured: Callable[[int], tuple[Axes, Axes]]) -> None:
        self.registers = registers
        self._measured = measured
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._number, self._due_s = 0, 0.0

    def __enter__(self) -> Self:
        self.registers.write(WHO_AM_I, bytes([ADDRESS]))
        self._reset()
        self._trace = self._overheard()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wake[1])
        self._thread.join()
        os.close(self._wake[0])
        os.close(self._trace)
        for event in ("smbus_read", "smbus_write"):
            (TRACE / "events/smbus" / event / "enable").write_text("0")

    @property
    def rate_hz(self) -> float:
        """How often it measures, with the low-pass filter on."""
        [divider] = self.registers.read(SMPLRT_DIV, 1)
        return 1000 / (1 + divider)

    @property
    def ranges(self) -> tuple[int, int]:
        """Its ranges, in g and in degrees per second."""
        gyro, acc = self.registers.read(GYRO_CONFIG, 2)
        return 2 << (acc >> 3 & 3), 250 << (gyro >> 3 & 3)

    @property
    def asleep(self) -> bool:
        """Whether it does not measure."""
        return bool(self.registers.read(PWR_MGMT_1, 1)[0] & (SLEEP | RESET))

    def brown_out(self) -> None:
        """Lose power for a moment."""
        self._reset()

    def _reset(self) -> None:
        for start in range(FIRST, LAST + 1, BLOCK_BYTES):
            self.registers.write(start, bytes(min(BLOCK_BYTES, LAST + 1 - start)))
        self.registers.write(PWR_MGMT_1, bytes([SLEEP]))

    def _overheard(self) -> int:
        """A file with what is said on the bus to this chip of its flag and its power."""
        if not (TRACE / "events").is_dir():
            assert ctypes.CDLL(None).mount(b"tracefs", str(TRACE).encode(), b"tracefs", 0, None) == 0
        for event, register in (("smbus_read", INT_STATUS), ("smbus_write", PWR_MGMT_1)):
            folder = TRACE / "events/smbus" / event
            (folder / "filter").write_text(f"addr == {self.registers.address} && command == {register}")
            (folder / "enable").write_text("1")
        # Else the kernel tells of it only when much was said.
        (TRACE / "buffer_percent").write_text("0")
        return os.open(TRACE / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)

    def _run(self) -> None:
        slept = True
        while True:
            asleep = self.asleep
            if slept and not asleep:
                self._number, self._due_s = 0, time.monotonic() + 1 / self.rate_hz
            slept = asleep
            wait_s = 0.05 if asleep else self._due_s - time.monotonic()
            readable, _, _ = select.select([self._trace, self._wake[0]], [], [], max(0.0, wait_s))
            if self._wake[0] in readable:
                return
            if self._trace in readable:
                self._hear()
            if not asleep and time.monotonic() >= self._due_s:
                self._measure()

    def _hear(self) -> None:
        try:
            heard = os.read(self._trace, 1 << 16)
        except BlockingIOError:
            return
        for way, address, register, data in SAID.findall(heard):
            assert int(address, 16) == self.registers.address
            if way == b"read" and int(register, 16) == INT_STATUS:
                # Reading clears it.
                self.registers.write(INT_STATUS, b"\0")
            elif way == b"write" and int(register, 16) == PWR_MGMT_1 and int(data[:2], 16) & RESET:
                self._reset_now()

    def _reset_now(self) -> None:
        # Heard too late, it has been set up anew already.
        if self.registers.read(PWR_MGMT_1, 1)[0] & RESET:
            self._reset()

    def _measure(self) -> None:
        acc_g, gyro_dps = self.ranges
        acc, gyro = self._measured(self._number)
        counts = [round(value * 32768 / acc_g) for value in acc]
        # 131 counts per degree a second at 250 (PS-MPU-6000A, section 6.1); between both, a temperature.
        counts += [0, *(round(value * 131 * 250 / gyro_dps) for value in gyro)]
        # One transfer, as in the chip: a reader never sees half of a measurement.
        self.registers.write(INT_STATUS, bytes([DATA_READY]) + struct.pack(">7h", *counts))
        # Where this thread came too late, samples are passed over: a chip does not hurry.
        due = 1 + int((time.monotonic() - self._due_s) * self.rate_hz)
        self._number += due
        self._due_s += due / self.rate_hz
