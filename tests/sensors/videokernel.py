"""A kernel with video devices that need no camera: what drivers answer to each request, and how they deviate.

Structures and numbers are those of linux/videodev2.h on 64-bit machines, written down as C lays them out and not as the
product does. As the kernel does, it refuses what it documents as an error: buffers queued twice, reserved fields that
are not zero, formats changed while buffers are there. Whatever goes wrong, `leaks` tells what was not given back.
"""

import ctypes
import errno
import mmap
import os
import select
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

PAGE = mmap.PAGESIZE
u8, u32, s32, s64 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_int32, ctypes.c_int64


class Capability(ctypes.Structure):
    _fields_ = [
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", u32),
        ("capabilities", u32),
        ("device_caps", u32),
        ("reserved", u32 * 3),
    ]


class FormatDescription(ctypes.Structure):
    _fields_ = [
        ("index", u32),
        ("type", u32),
        ("flags", u32),
        ("description", u8 * 32),
        ("pixelformat", u32),
        ("mbus_code", u32),
        ("reserved", u32 * 3),
    ]


PIXEL_FORMAT = ("width", "height", "pixelformat", "field", "bytesperline", "sizeimage", "colorspace", "priv", "flags")


class PixelFormat(ctypes.Structure):
    _fields_ = [(name, u32) for name in (*PIXEL_FORMAT, "ycbcr_enc", "quantization", "xfer_func")]


class FormatUnion(ctypes.Union):
    # The window of an overlay holds pointers, which align the union to 8 bytes.
    _fields_ = [("pix", PixelFormat), ("win_pointer", ctypes.c_void_p), ("raw_data", u8 * 200)]


class Format(ctypes.Structure):
    _fields_ = [("type", u32), ("fmt", FormatUnion)]


class CaptureParameters(ctypes.Structure):
    _fields_ = [
        ("capability", u32),
        ("capturemode", u32),
        ("numerator", u32),
        ("denominator", u32),
        ("extendedmode", u32),
        ("readbuffers", u32),
        ("reserved", u32 * 4),
    ]


class ParametersUnion(ctypes.Union):
    _fields_ = [("capture", CaptureParameters), ("raw_data", u8 * 200)]


class StreamParameters(ctypes.Structure):
    _fields_ = [("type", u32), ("parm", ParametersUnion)]


class RequestBuffers(ctypes.Structure):
    _fields_ = [
        ("count", u32),
        ("type", u32),
        ("memory", u32),
        ("capabilities", u32),
        ("flags", u8),
        ("reserved", u8 * 3),
    ]


class TimeVal(ctypes.Structure):
    _fields_ = [("tv_sec", s64), ("tv_usec", s64)]


class TimeCode(ctypes.Structure):
    _fields_ = [
        ("type", u32),
        ("flags", u32),
        ("frames", u8),
        ("seconds", u8),
        ("minutes", u8),
        ("hours", u8),
        ("userbits", u8 * 4),
    ]


class Memory(ctypes.Union):
    _fields_ = [("offset", u32), ("userptr", ctypes.c_ulong), ("planes", ctypes.c_void_p), ("fd", s32)]


class Buffer(ctypes.Structure):
    _fields_ = [
        ("index", u32),
        ("type", u32),
        ("bytesused", u32),
        ("flags", u32),
        ("field", u32),
        ("timestamp", TimeVal),
        ("timecode", TimeCode),
        ("sequence", u32),
        ("memory", u32),
        ("m", Memory),
        ("length", u32),
        ("reserved2", u32),
        ("request_fd", s32),
    ]


# As a C compiler gives them from the header, on x86-64 and on arm64.
QUERYCAP, ENUM_FMT, S_FMT, S_PARM = 0x80685600, 0xC0405602, 0xC0D05605, 0xC0CC5616
REQBUFS, QUERYBUF, QBUF, DQBUF = 0xC0145608, 0xC0585609, 0xC058560F, 0xC0585611
STREAMON, STREAMOFF = 0x40045612, 0x40045613
LAYOUTS: dict[int, type[ctypes.Structure]] = {
    QUERYCAP: Capability,
    ENUM_FMT: FormatDescription,
    S_FMT: Format,
    S_PARM: StreamParameters,
    REQBUFS: RequestBuffers,
    QUERYBUF: Buffer,
    QBUF: Buffer,
    DQBUF: Buffer,
}
CAPTURE, META_CAPTURE, STREAMING, DEVICE_CAPS = 0x1, 0x0080_0000, 0x0400_0000, 0x8000_0000
TIME_PER_FRAME = 0x1000
MAPPED, QUEUED, DONE, ERROR = 0x1, 0x2, 0x4, 0x40
MONOTONIC, UNKNOWN, START_OF_EXPOSURE = 0x2000, 0x0, 0x0001_0000


@dataclass
class Shot:
    """A frame that the camera will have ready at `arrives_s`."""

    data: bytes
    arrives_s: float
    stamp_s: float | None = None  # Of the driver's clock; else when it arrives.
    sequence: int | None = None  # Else one more than the last.
    flags: int = MONOTONIC | START_OF_EXPOSURE
    bytes_used: int | None = None


@dataclass
class Camera:
    """A driver and its camera."""

    card: str = "Depth Eye"
    bus: str = "usb-0000:00:14.0-2"
    formats: tuple[str, ...] = ("Z16 ",)
    size: tuple[int, int] = (640, 480)  # What it gives, whatever it is asked for.
    row_padding: int = 0
    tells_stride: bool = True
    gives_format: str | None = None
    capabilities: int = CAPTURE | STREAMING
    tells_node: bool = True
    refuses_rate: int = 0  # The error of S_PARM.
    rate: tuple[int, int] = (1, 30)
    buffers: int | None = None
    buffer_bytes: int | None = None
    last_first: bool = False  # Buffers are filled in another order than they were queued.
    interrupts: int = 0  # So many requests are interrupted by a signal.
    broken: dict[int, int] = field(default_factory=dict)  # Requests that fail, with the error.
    events: int | None = None  # What poll tells instead of the truth.
    unplugged: bool = False
    shots: deque[Shot] = field(default_factory=deque)

    asked: list[tuple[int, int, str]] = field(default_factory=list)
    asked_rates: list[float] = field(default_factory=list)
    owner: int | None = None
    streams: bool = False
    stopped: int = 0
    sequence: int = 0
    memory: list[mmap.mmap] = field(default_factory=list)
    queued: deque[int] = field(default_factory=deque)
    done: deque[tuple[int, Shot, int]] = field(default_factory=deque)

    @property
    def picture_bytes(self) -> int:
        return self.buffer_bytes or (3 * self.size[0] + self.row_padding) * self.size[1]

    def forget(self) -> None:
        self.owner, self.streams, self.sequence = None, False, 0
        self.memory.clear()
        self.queued.clear()
        self.done.clear()


class VideoKernel:
    """Devices below a folder: `plug` one in, and it has a node there."""

    def __init__(self, dev: Path) -> None:
        self.dev, self.now_s = dev, 1000.0
        self._nodes: dict[str, Camera] = {}
        self._open: dict[int, Camera] = {}
        self._next = 100
        self.refused: dict[str, int] = {}
        self.waited_s: deque[float] = deque(maxlen=10)
        self.mapped: list[mmap.mmap] = []

    def plug(self, camera: Camera, node: str = "video0", link: str | None = None) -> Path:
        path = self.dev / node
        path.touch()
        camera.unplugged = False
        self._nodes[str(path)] = camera
        if link is not None:
            (self.dev / "v4l" / "by-id").mkdir(parents=True, exist_ok=True)
            there = self.dev / "v4l" / "by-id" / link
            there.unlink(missing_ok=True)
            there.symlink_to(f"../../{node}")
        return path

    def unplug(self, node: str = "video0") -> None:
        self._nodes.pop(str(self.dev / node)).unplugged = True
        (self.dev / node).unlink()
        for link in (self.dev / "v4l" / "by-id").glob("*"):
            if link.resolve() == (self.dev / node).resolve():
                link.unlink()

    def clock(self) -> float:
        return self.now_s

    def leaks(self) -> list[str]:
        still = [f"file {fd}" for fd in self._open]
        return still + ["memory" for each in self.mapped if not each.closed]

    def open(self, path: str) -> int:
        if path in self.refused:
            raise OSError(self.refused[path], os.strerror(self.refused[path]))
        if path not in self._nodes:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._next += 1
        self._open[self._next] = self._nodes[path]
        return self._next

    def close(self, fd: int) -> None:
        camera = self._open.pop(fd)
        if camera.owner == fd:
            camera.forget()

    def map(self, fd: int, length: int, offset: int) -> mmap.mmap:
        camera = self._open[fd]
        number, rest = divmod(offset, 16 * PAGE)
        if rest or number >= len(camera.memory) or length != camera.picture_bytes:
            fail(errno.EINVAL)
        self.mapped.append(camera.memory[number])
        return camera.memory[number]

    def wait(self, fd: int, timeout_s: float) -> int:
        camera = self._open[fd]
        self.waited_s.append(timeout_s)
        if camera.unplugged:
            return select.POLLERR | select.POLLHUP
        if camera.events is not None:
            return camera.events
        assert camera.streams, "poll tells of an error when nothing streams"
        self._capture(camera)
        if not camera.done:
            ends_s = self.now_s + timeout_s
            self.now_s = min([ends_s, *(shot.arrives_s for shot in camera.shots)])
            self._capture(camera)
        return select.POLLIN if camera.done else 0

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        camera = self._open[fd]
        if camera.interrupts:
            camera.interrupts -= 1
            fail(errno.EINTR)
        if camera.unplugged:
            fail(errno.ENODEV)
        if request in camera.broken:
            fail(camera.broken[request])
        if request in (STREAMON, STREAMOFF):
            assert len(argument) == 4
            self._stream(fd, camera, request == STREAMON, int.from_bytes(argument, "little"))
            return
        layout = LAYOUTS[request]
        assert len(argument) == ctypes.sizeof(layout), f"{layout.__name__} has {ctypes.sizeof(layout)} bytes"
        answer = layout.from_buffer(argument)
        match answer:
            case Capability():
                answer.card, answer.bus_info = camera.card.encode()[:31], camera.bus.encode()[:31]
                answer.driver, answer.version = b"fake", 0x060100
                if camera.tells_node:
                    # Of all nodes together, one for pictures and one for what is known about them.
                    answer.capabilities = camera.capabilities | CAPTURE | META_CAPTURE | STREAMING | DEVICE_CAPS
                    answer.device_caps = camera.capabilities
                else:
                    answer.capabilities = camera.capabilities
            case FormatDescription():
                if answer.type != 1 or answer.index >= len(camera.formats):
                    fail(errno.EINVAL)
                answer.pixelformat = code(camera.formats[answer.index])
            case Format():
                self._format(camera, answer)
            case StreamParameters():
                self._rate(camera, answer)
            case RequestBuffers():
                self._request(fd, camera, answer)
            case Buffer():
                self._buffer(fd, camera, request, answer)
            case _:
                raise AssertionError(f"no driver knows {request:#x}")
        # Otherwise the argument could not be resized, nor would its memory be free.
        del answer

    def _stream(self, fd: int, camera: Camera, on: bool, kind: int) -> None:
        if kind != 1 or camera.owner not in (None, fd):
            fail(errno.EINVAL)
        if not on:
            camera.stopped += 1
            camera.queued.clear()
            camera.done.clear()
        elif not camera.memory:
            fail(errno.EINVAL)
        camera.streams = on

    def _format(self, camera: Camera, answer: Format) -> None:
        if answer.type != 1:
            fail(errno.EINVAL)
        if camera.memory:
            fail(errno.EBUSY)
        pix = answer.fmt.pix
        wanted = pix.pixelformat.to_bytes(4, "little").decode()
        camera.asked.append((pix.width, pix.height, wanted))
        given = camera.gives_format or (wanted if wanted in camera.formats else camera.formats[0])
        pix.width, pix.height = camera.size
        pix.pixelformat, pix.field, pix.priv = code(given), 1, 0xFEEDCAFE
        pix.bytesperline = stride(given, camera) if camera.tells_stride else 0
        pix.sizeimage = camera.picture_bytes

    def _rate(self, camera: Camera, answer: StreamParameters) -> None:
        capture = answer.parm.capture
        if camera.refuses_rate:
            fail(camera.refuses_rate)
        if answer.type != 1 or any(capture.reserved):
            fail(errno.EINVAL)
        camera.asked_rates.append(capture.denominator / capture.numerator)
        capture.capability = TIME_PER_FRAME
        capture.numerator, capture.denominator = camera.rate

    def _request(self, fd: int, camera: Camera, answer: RequestBuffers) -> None:
        if answer.type != 1 or answer.memory != 1 or any(answer.reserved):
            fail(errno.EINVAL)
        if camera.owner not in (None, fd):
            fail(errno.EBUSY)
        camera.owner = fd
        answer.count = camera.buffers if camera.buffers is not None else answer.count
        camera.memory = [mmap.mmap(-1, camera.picture_bytes) for _ in range(min(answer.count, 32))]

    def _buffer(self, fd: int, camera: Camera, request: int, answer: Buffer) -> None:
        if answer.type != 1 or answer.memory != 1 or answer.reserved2 or camera.owner != fd:
            fail(errno.EINVAL)
        if request == DQBUF:
            self._dequeue(camera, answer)
            return
        if answer.index >= len(camera.memory):
            fail(errno.EINVAL)
        if request == QUERYBUF:
            answer.length, answer.m.offset = camera.picture_bytes, answer.index * 16 * PAGE
        else:
            if answer.index in camera.queued or any(answer.index == index for index, _, _ in camera.done):
                fail(errno.EINVAL)
            camera.queued.append(answer.index)
            answer.flags = MAPPED | QUEUED

    def _dequeue(self, camera: Camera, answer: Buffer) -> None:
        if not camera.streams:
            fail(errno.EINVAL)
        self._capture(camera)
        if not camera.done:
            fail(errno.EAGAIN)
        index, shot, sequence = camera.done.popleft()
        stamp_s = shot.arrives_s if shot.stamp_s is None else shot.stamp_s
        answer.index, answer.sequence, answer.length = index, sequence, camera.picture_bytes
        answer.bytesused = len(shot.data) if shot.bytes_used is None else shot.bytes_used
        answer.flags = MAPPED | DONE | shot.flags
        answer.timestamp.tv_sec, micros = divmod(round(stamp_s * 1e6), 1_000_000)
        answer.timestamp.tv_usec, answer.timecode.hours = micros, 23

    def _capture(self, camera: Camera) -> None:
        """What has arrived by now goes into buffers, and where there is none it is lost."""
        while camera.shots and camera.shots[0].arrives_s <= self.now_s + 1e-9:
            shot = camera.shots.popleft()
            sequence = camera.sequence if shot.sequence is None else shot.sequence
            camera.sequence = (sequence + 1) % 2**32
            if camera.queued:
                index = camera.queued.pop() if camera.last_first else camera.queued.popleft()
                memory = camera.memory[index] if index < len(camera.memory) else None
                if memory is not None:
                    memory.seek(0)
                    memory.write(shot.data[: len(memory)])
                camera.done.append((index, shot, sequence))


def code(letters: str) -> int:
    """v4l2_fourcc of the header."""
    a, b, c, d = (ord(each) for each in letters)
    return a | b << 8 | c << 16 | d << 24


def stride(letters: str, camera: Camera) -> int:
    pixel_bytes = {"Z16 ": 2, "Y16 ": 2, "YUYV": 2, "UYVY": 2, "RGB3": 3, "BGR3": 3, "MJPG": 0}.get(letters, 1)
    return camera.size[0] * pixel_bytes + camera.row_padding


def fail(number: int) -> None:
    raise OSError(number, os.strerror(number))
