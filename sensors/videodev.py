"""Video devices as Linux has them: what is said to one, and what it answers (Video for Linux, version 2).

After the kernel's linux/videodev2.h and its documentation, userspace-api/media/v4l; structures as they lie in memory on
64-bit machines, with frames in buffers of the driver that are mapped into this process. No decision is taken here.
"""

import contextlib
import errno
import fcntl
import math
import mmap
import os
import select
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

CAPABILITY = struct.Struct("=16s32s32sIII12x")  # driver, card, bus, version, capabilities, those of this node
FORMAT_DESCRIPTION = struct.Struct("=3I32sI16x")  # index, type, flags, description, pixel format
# type; width, height, pixel format, field, bytes per line, size, colour space, and five more; the union's rest
FORMAT = struct.Struct("=I4x12I152x")
# type; capability, mode, seconds per frame as numerator and denominator, and two more; the union's rest
STREAM_PARAMETERS = struct.Struct("=I6I176x")
REQUEST_BUFFERS = struct.Struct("=4IB3x")  # count, type, memory, capabilities, flags
# index, type, bytes used, flags, field; seconds, microseconds; time code; sequence, memory, offset; length, two more
BUFFER = struct.Struct("=5I4xqq16xIII4xIIi4x")
WORD = struct.Struct("=i")
SIZES = {CAPABILITY: 104, FORMAT_DESCRIPTION: 64, FORMAT: 208, STREAM_PARAMETERS: 204, REQUEST_BUFFERS: 20, BUFFER: 88}
assert all(layout.size == size for layout, size in SIZES.items()), "a structure is not laid out as the kernel has it"

# A request's number holds direction, size and the letter of its family (asm-generic/ioctl.h: x86, Arm, RISC-V).
WRITE, READ = 1, 2


def _request(direction: int, number: int, layout: struct.Struct) -> int:
    return direction << 30 | layout.size << 16 | ord("V") << 8 | number


QUERYCAP = _request(READ, 0, CAPABILITY)
ENUM_FMT = _request(READ | WRITE, 2, FORMAT_DESCRIPTION)
S_FMT = _request(READ | WRITE, 5, FORMAT)
REQBUFS = _request(READ | WRITE, 8, REQUEST_BUFFERS)
QUERYBUF = _request(READ | WRITE, 9, BUFFER)
QBUF = _request(READ | WRITE, 15, BUFFER)
DQBUF = _request(READ | WRITE, 17, BUFFER)
STREAMON = _request(WRITE, 18, WORD)
STREAMOFF = _request(WRITE, 19, WORD)
S_PARM = _request(READ | WRITE, 22, STREAM_PARAMETERS)

VIDEO_CAPTURE = 1  # As a type of buffer, and as a capability.
MEMORY_MMAP = 1
FIELD_NONE = 1
CAP_STREAMING, CAP_DEVICE_CAPS = 0x0400_0000, 0x8000_0000
CAP_TIME_PER_FRAME = 0x1000
FLAG_ERROR = 0x40
FLAG_TIMESTAMP_MASK, FLAG_TIMESTAMP_MONOTONIC = 0xE000, 0x2000

MOST_FORMATS = 256
# The kernel gives no more than 32, and a frame of 4096 x 4096 pixels with three bytes each is smaller than this.
MOST_BUFFERS, LARGEST_BUFFER_BYTES = 32, 64 * 2**20
TROUBLE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Kernel(Protocol):
    """What is asked of the operating system. Each raises OSError as it does."""

    def open(self, path: str) -> int:
        """A file descriptor that does not block."""

    def close(self, fd: int) -> None:
        """Give it back."""

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        """Ask; the answer replaces the argument."""

    def map(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """Memory of the driver's as memory of this process."""

    def wait(self, fd: int, timeout_s: float) -> int:
        """The events of poll(2), 0 when there were none in time."""


class Linux:
    """The kernel that this process runs on."""

    def open(self, path: str) -> int:
        """A file descriptor that child processes do not get."""
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Let a file descriptor go."""
        os.close(fd)

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        """Ask the driver."""
        fcntl.ioctl(fd, request, argument, True)

    def map(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """Shared memory. Drivers may insist on memory that could be written to."""
        return mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)

    def wait(self, fd: int, timeout_s: float) -> int:
        """What poll(2) tells of it."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return next((events for _, events in poll.poll(math.ceil(max(0.0, timeout_s) * 1000))), 0)


LINUX = Linux()


@dataclass(frozen=True, kw_only=True, slots=True)
class Capability:
    """Who a device is: its card's name, where it is attached, and whether frames can be captured from it."""

    card: str
    bus: str
    captures: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """The frames that a device gives, as it says itself."""

    width: int
    height: int
    code: int
    stride: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """A buffer with a frame: so many bytes, taken at `stamp_s` of the monotonic clock or of another."""

    index: int
    size_bytes: int
    damaged: bool
    stamp_s: float
    monotonic: bool
    sequence: int


class VideoDevice:
    """One device, open. Every method raises OSError as the kernel does."""

    def __init__(self, path: str, kernel: Kernel = LINUX) -> None:
        self._kernel = kernel
        self._fd: int | None = kernel.open(path)
        self._maps: list[mmap.mmap] = []
        self._streams = False

    def capability(self) -> Capability:
        """Who it is."""
        _, card, bus, _, all_nodes, this_node = CAPABILITY.unpack(self._ask(QUERYCAP, bytearray(CAPABILITY.size)))
        able = this_node if all_nodes & CAP_DEVICE_CAPS else all_nodes
        captures = bool(able & VIDEO_CAPTURE) and bool(able & CAP_STREAMING)
        return Capability(card=_text(card), bus=_text(bus), captures=captures)

    def formats(self) -> Iterator[int]:
        """The codes of the pixel formats that it offers."""
        for index in range(MOST_FORMATS):
            asked = bytearray(FORMAT_DESCRIPTION.pack(index, VIDEO_CAPTURE, 0, b"", 0))
            try:
                answer = self._ask(ENUM_FMT, asked)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return
                raise
            yield FORMAT_DESCRIPTION.unpack(answer)[4]

    def ask_for(self, width: int, height: int, code: int) -> Picture:
        """Ask for frames; what will come may be of another size or format."""
        wish = FORMAT.pack(VIDEO_CAPTURE, width, height, code, FIELD_NONE, *[0] * 8)
        _, width, height, code, _, stride, *_ = FORMAT.unpack(self._ask(S_FMT, bytearray(wish)))
        return Picture(width=width, height=height, code=code, stride=stride)

    def ask_for_rate(self, rate_hz: float) -> float | None:
        """Ask for so many frames a second: how many will come, or None where the device does not say."""
        wish = STREAM_PARAMETERS.pack(VIDEO_CAPTURE, 0, 0, 1000, round(rate_hz * 1000), 0, 0)
        answer = self._ask(S_PARM, bytearray(wish))
        _, able, _, numerator, denominator, *_ = STREAM_PARAMETERS.unpack(answer)
        if not able & CAP_TIME_PER_FRAME or not numerator or not denominator:
            return None
        return float(denominator / numerator)

    def start(self, buffers: int) -> None:
        """Begin to capture into about so many buffers."""
        answer = self._ask(REQBUFS, bytearray(REQUEST_BUFFERS.pack(buffers, VIDEO_CAPTURE, MEMORY_MMAP, 0, 0)))
        count = REQUEST_BUFFERS.unpack(answer)[0]
        if not 0 < count <= MOST_BUFFERS:
            raise OSError(errno.ENOMEM, f"the driver gave {count} buffers")
        for index in range(count):
            told = BUFFER.unpack(self._ask(QUERYBUF, _buffer(index)))
            offset, length = told[9], told[10]
            if not 0 < length <= LARGEST_BUFFER_BYTES:
                raise OSError(errno.ENOMEM, f"the driver has a buffer of {length} bytes")
            self._maps.append(self._kernel.map(self._open(), length, offset))
            self.give_back(index)
        self._ask(STREAMON, bytearray(WORD.pack(VIDEO_CAPTURE)))
        self._streams = True

    def wait(self, timeout_s: float) -> int:
        """Wait for a frame: the events that poll(2) tells of, 0 when nothing came."""
        return self._kernel.wait(self._open(), timeout_s)

    def take(self) -> Filled | None:
        """The next frame, which is the caller's until it is given back; None when there is none yet."""
        try:
            told = BUFFER.unpack(self._ask(DQBUF, _buffer(0)))
        except BlockingIOError:
            return None
        index, _, size_bytes, flags, _, whole_s, micros, sequence = told[:8]
        if index >= len(self._maps):
            raise OSError(errno.EIO, f"the driver gave buffer {index} of {len(self._maps)}")
        return Filled(
            index=index,
            size_bytes=size_bytes,
            damaged=bool(flags & FLAG_ERROR),
            stamp_s=whole_s + micros / 1e6,
            monotonic=flags & FLAG_TIMESTAMP_MASK == FLAG_TIMESTAMP_MONOTONIC,
            sequence=sequence,
        )

    def bytes_of(self, filled: Filled) -> memoryview:
        """The frame's bytes where they lie, no more than there are; valid until the frame is given back."""
        return memoryview(self._maps[filled.index])[: filled.size_bytes]

    def give_back(self, index: int) -> None:
        """Let the driver have a buffer."""
        self._ask(QBUF, _buffer(index))

    def close(self) -> None:
        """Stop and let go of everything, whatever has become of the device; again without harm."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        if self._streams:
            with contextlib.suppress(OSError):
                self._kernel.ioctl(fd, STREAMOFF, bytearray(WORD.pack(VIDEO_CAPTURE)))
        for each in self._maps:
            # Memory that somebody looks at is unmapped when nobody does any more.
            with contextlib.suppress(OSError, BufferError):
                each.close()
        self._maps, self._streams = [], False
        with contextlib.suppress(OSError):
            self._kernel.close(fd)

    def _open(self) -> int:
        if self._fd is None:
            raise OSError(errno.EBADF, "the device is closed")
        return self._fd

    def _ask(self, request: int, argument: bytearray) -> bytearray:
        while True:
            try:
                self._kernel.ioctl(self._open(), request, argument)
            except InterruptedError:
                continue
            return argument


def code_of(text: str) -> int:
    """A pixel format's four letters as the number that drivers use."""
    return int.from_bytes(text.encode("ascii"), "little")


def _buffer(index: int) -> bytearray:
    return bytearray(BUFFER.pack(index, VIDEO_CAPTURE, 0, 0, 0, 0, 0, 0, MEMORY_MMAP, 0, 0, 0, 0))


def _text(field: bytes) -> str:
    """Text of a structure, which ends at its first zero byte; what would spoil a log or a terminal is replaced."""
    text = field.split(b"\0")[0].decode("utf-8", "replace").strip()
    return "".join(each if each.isprintable() else "?" for each in text)
