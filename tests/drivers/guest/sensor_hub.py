"""A hub of HID sensors behind /dev/uhid, which the kernel takes for hardware: accelerometer and gyroscope.

The kernel's own hid-sensor-hub, hid-sensor-accel-3d and hid-sensor-gyro-3d make IIO devices of it. Usages are those of
HID Usage Tables, page 0x20 (Sensors); what the driver asks for is in Documentation/hid/hid-sensor.rst, and the events
of /dev/uhid are in Documentation/hid/uhid.rst and <linux/uhid.h>.
"""

import errno
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

DESTROY, GET_REPORT, GET_REPORT_REPLY, CREATE2, INPUT2, SET_REPORT, SET_REPORT_REPLY = 1, 9, 10, 11, 12, 13, 14
FEATURE, INPUT = 0, 2
BUS_USB = 3
EVENT_BYTES = 4380
# Values of the two states, which count from 1 as in the usage tables; the driver relies on it.
ALL_EVENTS, FULL_POWER = 2, 2

Counts = tuple[int, int, int]


@dataclass(kw_only=True)
class HidSensor:
    """One sensor of three axes, 16 bits each, whose count is worth 10 ** `exponent` of its unit.

    `counts` gives what the sample of this number holds. What the driver has set is in `reporting`, `power` and
    `interval_ms`; `sent_s` has, by the number of each sample, the seconds before and after it was handed to the kernel.
    """

    number: int
    usage: int
    axes: tuple[int, int, int]
    exponent: int
    counts: Callable[[int], Counts]
    interval_ms: int = 100
    reporting: int = 1
    power: int = 1
    sent_s: list[tuple[float, float]] = field(default_factory=list)
    due_s: float = 0.0

    @property
    def on(self) -> bool:
        """Whether the driver wants samples."""
        return self.reporting == ALL_EVENTS and self.power == FULL_POWER

    def sample(self) -> bytes:
        """The input report that is next."""
        return struct.pack("<B3h", self.number, *self.counts(len(self.sent_s)))

    def settings(self) -> bytes:
        """The feature report."""
        return struct.pack("<BBBI", self.number, self.reporting, self.power, self.interval_ms)

    def set(self, report: bytes) -> None:
        """Take over what the driver writes."""
        was = self.on
        _, self.reporting, self.power, self.interval_ms = struct.unpack("<BBBI", report[:7])
        if self.on and not was:
            self.due_s = time.monotonic()

    def description(self) -> bytes:
        """Its part of the report descriptor."""
        return b"".join(
            (
                b"\x05\x20" + b"\x09" + bytes([self.usage]) + b"\xa1\x00",  # page, usage, physical collection
                b"\x85" + bytes([self.number]),  # report id
                states(0x0316, range(0x0840, 0x0846)),  # reporting state
                states(0x0319, range(0x0850, 0x0856)),  # power state
                # Report interval: 32 bits, in milliseconds.
                usage(0x030E) + b"\x15\x00\x27\xff\xff\xff\x7f\x75\x20\x95\x01\x55\x00\xb1\x02",
                b"".join(
                    usage(axis)
                    + b"\x16\x01\x80\x26\xff\x7f\x75\x10\x95\x01\x55"
                    + bytes([self.exponent & 0x0F])
                    # Input: data, variable, absolute.
                    + b"\x81\x02"
                    for axis in self.axes
                ),
                b"\xc0",
            )
        )


def usage(number: int) -> bytes:
    """Usage, as two bytes."""
    return b"\x0a" + number.to_bytes(2, "little")


def states(name: int, values: range) -> bytes:
    """A feature that is one of several states."""
    listed = b"".join(usage(value) for value in values)
    bounds = b"\x15\x01\x25" + bytes([len(values)])
    return usage(name) + bounds + b"\x75\x08\x95\x01\xa1\x02" + listed + b"\xb1\x00\xc0"


def accelerometer(counts: Callable[[int], Counts], number: int = 1) -> HidSensor:
    """Counts are thousandths of g."""
    return HidSensor(number=number, usage=0x73, axes=(0x0453, 0x0454, 0x0455), exponent=-3, counts=counts)


def gyroscope(counts: Callable[[int], Counts], number: int = 2) -> HidSensor:
    """Counts are hundredths of a degree per second."""
    return HidSensor(number=number, usage=0x76, axes=(0x0457, 0x0458, 0x0459), exponent=-2, counts=counts)


@dataclass
class SensorHub:
    """Plugged in while the context lasts, and in between as `plug` and `unplug` say; a thread answers the kernel."""

    sensors: Sequence[HidSensor]
    name: str = "Mekt test sensors"
    _fd: int = field(default=-1, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _wake: tuple[int, int] = field(default=(-1, -1), init=False)
    _leaving: bool = field(default=False, init=False)

    def __enter__(self) -> Self:
        self.plug()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def plug(self) -> None:
        """Appear on the bus."""
        assert self._thread is None
        for each in self.sensors:
            each.reporting = each.power = 1
        self._leaving = False
        self._fd = os.open("/dev/uhid", os.O_RDWR | os.O_NONBLOCK)
        self._wake = os.pipe()
        described = b"\x05\x20\x09\x01\xa1\x01" + b"".join(each.description() for each in self.sensors) + b"\xc0"
        head = struct.pack(
            "<I128s64s64sHHIIII", CREATE2, self.name.encode(), b"", b"", len(described), BUS_USB, 1, 2, 0, 0
        )
        os.write(self._fd, head + described)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """Vanish, as if pulled out; without harm when it is out already."""
        if self._thread is None:
            return
        self._leaving = True
        os.write(self._fd, struct.pack("<I", DESTROY))
        os.close(self._wake[1])
        self._thread.join()
        os.close(self._wake[0])
        os.close(self._fd)
        self._thread = None

    def _serve(self) -> None:
        while True:
            running = [each for each in self.sensors if each.on]
            wait_s = min((each.due_s for each in running), default=time.monotonic() + 1.0) - time.monotonic()
            readable, _, _ = select.select([self._fd, self._wake[0]], [], [], max(0.0, wait_s))
            if self._wake[0] in readable:
                return
            if self._fd in readable:
                self._answer(os.read(self._fd, EVENT_BYTES))
            for each in running:
                if each.on and time.monotonic() >= each.due_s:
                    report = each.sample()
                    before_s = time.monotonic()
                    self._say(struct.pack("<IH", INPUT2, len(report)) + report)
                    each.sent_s.append((before_s, time.monotonic()))
                    each.due_s += max(1, each.interval_ms) / 1000

    def _answer(self, event: bytes) -> None:
        (kind,) = struct.unpack_from("<I", event)
        if kind == GET_REPORT:
            request, number, what = struct.unpack_from("<IBB", event, 4)
            sensor = next(each for each in self.sensors if each.number == number)
            report = sensor.settings() if what == FEATURE else sensor.sample()
            self._say(struct.pack("<IIHH", GET_REPORT_REPLY, request, 0, len(report)) + report)
        elif kind == SET_REPORT:
            request, number, what, length = struct.unpack_from("<IBBH", event, 4)
            sensor = next(each for each in self.sensors if each.number == number)
            sensor.set(event[12 : 12 + length])
            self._say(struct.pack("<IIH", SET_REPORT_REPLY, request, 0))

    def _say(self, event: bytes) -> None:
        try:
            os.write(self._fd, event)
        except OSError as error:
            # So it is told that nobody listens any more.
            if not (self._leaving and error.errno == errno.EINVAL):
                raise
