"""A workbench without hardware: an I2C bus at the level of the kernel's ioctls, chips that behave as data sheets say.

Chips sample by a clock of their own. Sample k of a chip holds `counts(k)`, so that a test knows from a value which
sample it is, and from `taken_s` when it was taken. Nothing here is shared with what is tested, not even a constant.
"""

import ctypes
import errno
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

I2C_FUNCTIONS = 0x00000001
SMBUS_FUNCTIONS = 0x04000000 | 0x00100000
Six = tuple[int, int, int, int, int, int]


def counts(k: int) -> Six:
    """Acceleration and rotation of sample k, as raw counts; k can be told from each of the first five."""
    n = k % 12000
    return n, -n, n // 2 + 100, n + 1, -n - 2, 77


class Bench:
    """Time, one bus and what is plugged into it. `trace` has every message: address, direction, bytes."""

    def __init__(
        self, folder: Path, *, functions: int = I2C_FUNCTIONS, adapter: str = "bcm2835 (i2c@7e804000)"
    ) -> None:
        self.folder, self.functions = folder, functions
        self.now_s = 1000.0
        self.byte_s = 9 / 400_000
        self.chips: dict[int, FakeChip] = {}
        self.bound: set[int] = set()
        self.trace: list[tuple[int, str, bytes]] = []
        self.failures: deque[int] = deque()
        self.waits: list[float] = []
        self.slave: int | None = None
        # What happens elsewhere in the middle of transactions, by their number from now on.
        self.delays: dict[int, float] = {}
        self.add_bus(1, adapter)

    def add_bus(self, number: int, adapter: str) -> None:
        named = self.folder / "sys" / "class" / "i2c-dev" / f"i2c-{number}"
        named.mkdir(parents=True, exist_ok=True)
        (named / "name").write_text(adapter + "\n", encoding="utf-8")
        (self.folder / "dev").mkdir(exist_ok=True)
        (self.folder / "dev" / f"i2c-{number}").touch()

    def plug(self, address: int, chip: "FakeChip") -> None:
        chip.bench = self
        chip.power_on()
        self.chips[address] = chip

    def clock(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        assert seconds >= 0
        self.waits.append(seconds)
        self.now_s += seconds

    def ioctl(self, file: int, request: int, argument: Any) -> int:
        os.fstat(file)
        if self.failures:
            number = self.failures.popleft()
            if number:
                raise OSError(number, os.strerror(number))
        match request:
            case 0x0703:
                if argument in self.bound:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
                self.slave = argument
            case 0x0705:
                argument.value = self.functions
            case 0x0707:
                assert self.functions & I2C_FUNCTIONS
                for index in range(argument.nmsgs):
                    message = argument.msgs[index]
                    if message.flags & 1:
                        ctypes.memmove(message.buf, self._read(message.addr, message.len), message.len)
                    else:
                        self._write(message.addr, ctypes.string_at(message.buf, message.len))
            case 0x0720:
                self._smbus(argument)
            case _:
                raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        return 0

    def _smbus(self, call: Any) -> None:
        assert self.slave is not None
        if (call.read_write, call.size) == (0, 2):
            self._write(self.slave, bytes((call.command, call.data[0])))
        elif (call.read_write, call.size) == (1, 8):
            count = min(call.data[0], 32)
            self._write(self.slave, bytes((call.command,)))
            data = self._read(self.slave, count)
            ctypes.memmove(call.data, bytes((count,)) + data, 1 + count)
        else:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def _chip(self, address: int) -> "FakeChip":
        if self.delays:
            self.delays = {number - 1: delay_s for number, delay_s in self.delays.items()}
            self.now_s += self.delays.pop(0, 0.0)
        if address not in self.chips:
            raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))
        chip = self.chips[address]
        chip.sample_until(self.now_s)
        return chip

    def _write(self, address: int, data: bytes) -> None:
        self._chip(address).written(data)
        self.trace.append((address, "W", data))
        self.now_s += (1 + len(data)) * self.byte_s

    def _read(self, address: int, count: int) -> bytes:
        data = self._chip(address).given(count)
        self.trace.append((address, "R", data))
        self.now_s += (1 + count) * self.byte_s
        return data

    def settings_written(self, address: int) -> list[tuple[int, int]]:
        """Register and value of every write so far."""
        return [
            (data[0], data[1]) for where, way, data in self.trace if (where, way) == (address, "W") and len(data) == 2
        ]


class FakeChip:
    """Numbered bytes with a pointer that counts on, and a clock. `fast` is how much faster than nominal it runs."""

    def __init__(self, *, fast: float = 0.0, source: Callable[[int], Six] = counts) -> None:
        self.fast, self.source = fast, source
        self.bench: Bench | None = None
        self.registers = bytearray(256)
        self.pointer = 0
        self.taken_s: list[float] = []
        self.next_s: float | None = None
        self.response: Six = (0, 0, 0, 0, 0, 0)

    # What the kinds of chips differ in

    def power_on(self) -> None:
        """All registers as after power on; not measuring."""
        self.registers = bytearray(256)
        self.next_s = None

    def rate_hz(self) -> float:
        """The rate as it is set; 0 when the chip does not measure."""
        raise NotImplementedError

    def take(self, six: Six) -> None:
        """Put a sample where it belongs."""
        raise NotImplementedError

    def store(self, register: int, value: int) -> None:
        self.registers[register] = value

    def load(self, register: int) -> int:
        return self.registers[register]

    def after(self, register: int) -> int:
        """The register that comes next in a burst."""
        return (register + 1) % 256

    def tested(self) -> tuple[bool, bool]:
        """Whether the self test's forces act on acceleration and rotation."""
        return False, False

    # What is common

    def written(self, data: bytes) -> None:
        self.pointer = data[0]
        for value in data[1:]:
            self.store(self.pointer, value)
            self.pointer = self.after(self.pointer)
        self.reschedule()

    def given(self, count: int) -> bytes:
        given = bytearray()
        for _ in range(count):
            given.append(self.load(self.pointer))
            self.pointer = self.after(self.pointer)
        return bytes(given)

    def period_s(self) -> float:
        return 1 / (self.rate_hz() * (1 + self.fast))

    def reschedule(self) -> None:
        assert self.bench is not None
        if self.rate_hz() == 0:
            self.next_s = None
        elif self.next_s is None:
            self.next_s = self.bench.now_s + self.period_s()

    def sample_until(self, now_s: float) -> None:
        while self.next_s is not None and self.next_s <= now_s:
            six = self.source(len(self.taken_s))
            acc, gyro = self.tested()
            pushed = [
                n + r * (acc if axis < 3 else gyro) for axis, (n, r) in enumerate(zip(six, self.response, strict=True))
            ]
            self.taken_s.append(self.next_s)
            self.take((pushed[0], pushed[1], pushed[2], pushed[3], pushed[4], pushed[5]))
            self.next_s += self.period_s()


def big(*words: int) -> bytes:
    return b"".join(word.to_bytes(2, "big", signed=True) for word in words)


def little(*words: int) -> bytes:
    return b"".join(word.to_bytes(2, "little", signed=True) for word in words)


class FakeMpu(FakeChip):
    """MPU-6050, or with another identity a later one; `has_fifo` False as in some copies."""

    def __init__(self, *, identity: int = 0x68, fifo_bytes: int = 1024, has_fifo: bool = True, **more: Any) -> None:
        super().__init__(**more)
        self.identity, self.fifo_bytes, self.has_fifo = identity, fifo_bytes, has_fifo
        self.fifo: deque[int] = deque()
        self.last = 0
        self.trim = bytes(4)
        self.gyro_trim = bytes(3)

    def power_on(self) -> None:
        super().power_on()
        self.registers[0x75] = self.identity
        self.registers[0x6B] = 0x40
        self.registers[0x00:0x03] = self.gyro_trim
        self.registers[0x0D:0x11] = self.trim
        self.fifo.clear()

    def rate_hz(self) -> float:
        if self.registers[0x6B] & 0x40:
            return 0.0
        inner_hz = 1000 if 1 <= self.registers[0x1A] & 7 <= 6 else 8000
        return inner_hz / (1 + self.registers[0x19])

    def tested(self) -> tuple[bool, bool]:
        return bool(self.registers[0x1C] & 0xE0), bool(self.registers[0x1B] & 0xE0)

    def take(self, six: Six) -> None:
        self.registers[0x3B:0x49] = big(*six[:3], 1234, *six[3:])
        self.registers[0x3A] |= 0x01
        if not (self.has_fifo and self.registers[0x6A] & 0x40):
            return
        enabled = self.registers[0x23]
        frame = big(*six[:3]) * bool(enabled & 0x08) + big(*six[3:]) * (enabled & 0x70 == 0x70)
        for byte in frame:
            if len(self.fifo) == self.fifo_bytes:
                self.fifo.popleft()
                self.registers[0x3A] |= 0x10
            self.fifo.append(byte)

    def store(self, register: int, value: int) -> None:
        if register == 0x6B and value & 0x80:
            self.power_on()
        elif register == 0x6A and value & 0x04:
            self.fifo.clear()
            self.registers[0x6A] = value & ~0x04
        elif register not in (0x3A, 0x72, 0x73, 0x75):
            self.registers[register] = value

    def load(self, register: int) -> int:
        match register:
            case 0x3A:
                status, self.registers[0x3A] = self.registers[0x3A], 0
                return status
            case 0x72:
                self.registers[0x72:0x74] = len(self.fifo).to_bytes(2, "big")
                return self.registers[0x72]
            case 0x74:
                if self.fifo:
                    self.last = self.fifo.popleft()
                return self.last
            case _:
                return self.registers[register]

    def after(self, register: int) -> int:
        return register if register == 0x74 else super().after(register)


class FakeLsm(FakeChip):
    """What the LSM6DS3 and the LSM6DSO have in common."""

    IDENTITY = 0x00
    RATES_HZ = (0.0, 12.5, 26.0, 52.0, 104.0, 208.0, 416.0, 833.0, 1666.0)

    def power_on(self) -> None:
        super().power_on()
        self.registers[0x0F] = self.IDENTITY
        self.registers[0x12] = 0x04
        self.empty()

    def rate_hz(self) -> float:
        return max(self.RATES_HZ[self.registers[0x10] >> 4], self.RATES_HZ[self.registers[0x11] >> 4])

    def tested(self) -> tuple[bool, bool]:
        return self.registers[0x14] & 0x03 == 0x01, self.registers[0x14] & 0x0C == 0x04

    def acc_on(self) -> bool:
        return self.registers[0x10] >> 4 != 0

    def gyro_on(self) -> bool:
        return self.registers[0x11] >> 4 != 0

    def take(self, six: Six) -> None:
        if self.gyro_on():
            self.registers[0x22:0x28] = little(*six[3:])
            self.registers[0x1E] |= 0x02
        if self.acc_on():
            self.registers[0x28:0x2E] = little(*six[:3])
            self.registers[0x1E] |= 0x01
        self.batch(six)

    def store(self, register: int, value: int) -> None:
        if register == 0x12 and value & 0x01:
            self.power_on()
        elif register not in (0x0F, 0x1E, 0x3A, 0x3B):
            self.registers[register] = value

    def load(self, register: int) -> int:
        if register == 0x27:
            self.registers[0x1E] &= ~0x02
        elif register == 0x2D:
            self.registers[0x1E] &= ~0x01
        return self.registers[register]

    def empty(self) -> None:
        raise NotImplementedError

    def batch(self, six: Six) -> None:
        raise NotImplementedError


class FakeLsm6ds3(FakeLsm):
    """A FIFO of 16-bit words; when full, the oldest words go."""

    IDENTITY = 0x69
    WORDS = 4095

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        # Each word with its place among those of an instant.
        self.fifo: deque[tuple[int, bytes]] = deque()
        self.overrun = False

    def empty(self) -> None:
        self.fifo.clear()
        self.overrun = False

    def batch(self, six: Six) -> None:
        if self.registers[0x0A] & 0x07 != 0x06 or self.registers[0x0A] >> 3 == 0:
            return
        words = list(six[3:]) * (self.registers[0x08] & 0x38 == 0x08) + list(six[:3]) * (self.registers[0x08] & 7 == 1)
        for place, word in enumerate(words):
            if len(self.fifo) == self.WORDS:
                self.fifo.popleft()
                self.overrun = True
            self.fifo.append((place, little(word)))

    def store(self, register: int, value: int) -> None:
        super().store(register, value)
        if register == 0x0A and value & 0x07 == 0:
            self.empty()

    def load(self, register: int) -> int:
        match register:
            case 0x3A:
                return len(self.fifo) & 0xFF
            case 0x3B:
                return len(self.fifo) >> 8 | 0x40 * self.overrun | 0x10 * (not self.fifo)
            case 0x3C:
                return self.fifo[0][0] if self.fifo else 0
            case 0x3D:
                return 0
            case 0x3E:
                return self.fifo[0][1][0] if self.fifo else 0
            case 0x3F:
                self.overrun = False
                return self.fifo.popleft()[1][1] if self.fifo else 0
            case _:
                return super().load(register)

    def after(self, register: int) -> int:
        return 0x3E if register == 0x3F else super().after(register)


class FakeLsm6dso(FakeLsm):
    """A FIFO of 512 tagged words; when full, the oldest words go."""

    IDENTITY = 0x6C
    WORDS = 512

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.fifo: deque[bytes] = deque()
        self.latched = False
        self.slot = 0

    def empty(self) -> None:
        self.fifo.clear()
        self.latched = False

    def push(self, tag: int, words: tuple[int, ...]) -> None:
        if len(self.fifo) == self.WORDS:
            self.fifo.popleft()
            self.latched = True
        byte = tag << 3 | self.slot << 1
        self.fifo.append(bytes((byte | byte.bit_count() & 1,)) + little(*words))

    def batch(self, six: Six) -> None:
        self.slot = (self.slot + 1) % 4
        if self.registers[0x0A] & 0x07 != 0x06:
            return
        if self.registers[0x09] >> 4:
            self.push(0x01, six[3:])
        if self.registers[0x09] & 0x0F:
            self.push(0x02, six[:3])

    def store(self, register: int, value: int) -> None:
        super().store(register, value)
        if register == 0x0A and value & 0x07 == 0:
            self.empty()

    def load(self, register: int) -> int:
        if register == 0x3A:
            return len(self.fifo) & 0xFF
        if register == 0x3B:
            latched, self.latched = self.latched, False
            return len(self.fifo) >> 8 | 0x08 * latched
        if 0x78 <= register <= 0x7E:
            if not self.fifo:
                return 0
            byte = self.fifo[0][register - 0x78]
            if register == 0x7E:
                self.fifo.popleft()
            return byte
        return super().load(register)

    def after(self, register: int) -> int:
        return 0x78 if register == 0x7E else super().after(register)


class FakeAdxl345(FakeChip):
    """A FIFO of 32 samples, the newest of which are kept in stream mode, and one at the output."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.fifo: deque[bytes] = deque()
        self.output = bytes(6)
        self.overrun = False

    def power_on(self) -> None:
        super().power_on()
        self.registers[0x00] = 0xE5
        self.registers[0x2C] = 0x0A
        self.fifo.clear()
        self.overrun = False

    def rate_hz(self) -> float:
        return 3200 / 2 ** (15 - (self.registers[0x2C] & 0x0F)) if self.registers[0x2D] & 0x08 else 0.0

    def tested(self) -> tuple[bool, bool]:
        return bool(self.registers[0x31] & 0x80), False

    def take(self, six: Six) -> None:
        # The offsets count in steps of 15.6 mg, of which full resolution has four.
        offsets = [int.from_bytes(self.registers[0x1E + axis : 0x1F + axis], "big", signed=True) for axis in range(3)]
        sample = little(*(word + 4 * offset for word, offset in zip(six[:3], offsets, strict=True)))
        kept = 33 if self.registers[0x38] >> 6 == 2 else 1
        self.fifo.append(sample)
        while len(self.fifo) > kept:
            self.fifo.popleft()
            self.overrun = True

    def store(self, register: int, value: int) -> None:
        if register == 0x38 and value >> 6 == 0:
            self.fifo.clear()
        if register not in (0x00, 0x30, 0x39):
            self.registers[register] = value

    def load(self, register: int) -> int:
        match register:
            case 0x30:
                return 0x80 * bool(self.fifo) | 0x01 * self.overrun
            case 0x39:
                return len(self.fifo)
            case _ if 0x32 <= register <= 0x37:
                if self.fifo:
                    self.output = self.fifo[0]
                if register == 0x37 and self.fifo:
                    self.fifo.popleft()
                    self.overrun = False
                return self.output[register - 0x32]
            case _:
                return self.registers[register]
