"""Sensors behind a serial port, such as a board on USB, that write lines of numbers: with the standard library alone.

    [[sensors]]
    kind = "serial"
    device = "/dev/serial/by-id/usb-Arduino_Nano_33-if00"
    baud = 115200
    columns = 4                                  # 1712,0.012,-0.003,0.981
    time = { field = "1", unit = "ms", bits = 32 }
    signals = [{ name = "acc", fields = ["2", "3", "4"], rate_hz = 50 }]

A line's columns are told apart by a separator and named by their number from 1, or by their label: `0.1,0.2,9.8`,
`ax:0.1 ay:0.2`. What does not fit is counted, logged once for each cause, and dropped. The port is opened to read, raw,
8 data bits, no parity, one stop bit (termios(3)); opening it restarts many boards, which is theirs to bear.
"""

import contextlib
import errno
import fcntl
import os
import select
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mekt import catalogue
from mekt.errors import SensorError
from mekt.schema import Bounds
from sensors.columns import MOST_COLUMNS, cells, labelled, number, numbers
from sensors.dropped import Dropped
from sensors.found import Found
from sensors.intake import Intake, Samples
from sensors.lines import Lines
from sensors.signals import Signal, Signals, TimeField, signals_named_once
from sensors.source import Item, Source

BY_ID = Path("/dev/serial/by-id")
READ_BYTES = 4096
COMMENT = "#"
# The speeds that this system knows, in baud.
SPEEDS = {int(name[1:]): getattr(termios, name) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}
# Fields of what tcgetattr gives (termios(3)): input, output, control and local modes, speeds in and out, characters.
IFLAG, OFLAG, CFLAG, LFLAG, ISPEED, OSPEED, CC = range(7)


@dataclass(frozen=True, kw_only=True, slots=True)
class SerialSettings:
    """Lines of text from `device` at `baud`, whose columns `separator` tells apart; a blank stands for any of them.

    Name the device as /dev/serial/by-id has it: that name stays when the sensor is unplugged and returns. `signals` say
    which columns make what; `columns`, where it is given, is how many every line has. Lines that begin with # are
    comments. Without `time` samples are taken when they come, those that come together at the nominal rate.
    """

    kind: Literal["serial"] = "serial"
    device: Annotated[str, Bounds(shortest=1, longest=4096)]
    baud: int = 115_200
    separator: Annotated[str, Bounds(shortest=1, longest=4)] = ","
    columns: Annotated[int, Bounds(low=1, high=MOST_COLUMNS)] | None = None
    signals: Signals
    time: TimeField | None = None

    def __post_init__(self) -> None:
        signals_named_once(self.signals)
        if self.baud not in SPEEDS or self.baud == 0:
            near = min((each for each in SPEEDS if each), key=lambda each: abs(each - self.baud))
            raise ValueError(f"baud: {self.baud} is no speed that this system knows; the nearest is {near}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of what the lines hold."""
        return tuple(each.name for each in self.signals)

    def source(self, base: Path) -> Source:
        """The lines as a source."""
        return SerialSource(self, base / self.device)


class SerialSource:
    """Reads a serial port. `dropped` counts what did not fit, over all openings."""

    def __init__(self, settings: SerialSettings, device: Path) -> None:
        self.modalities = tuple(each.modality for each in settings.signals)
        self.dropped = Dropped(str(device))
        self._settings = settings
        self._device = device
        self._port: int | None = None
        self._lines = Lines()
        self._intake = Intake(settings.signals, settings.time, self.dropped)

    def open(self) -> None:
        """Open the port; what it holds from before is forgotten.

        Raises:
            SensorError: when it is not there, is no serial port, is read by another, or may not be read.
        """
        self.close()
        try:
            # Without O_NONBLOCK this would wait for a carrier, with O_NOCTTY it does not become our terminal.
            self._port = os.open(self._device, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.flock(self._port, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _make_raw(self._port, SPEEDS[self._settings.baud])
        except (OSError, termios.error) as error:
            self.close()
            raise self._failure(error) from error
        self._lines = Lines()
        self._intake = Intake(self._settings.signals, self._settings.time, self.dropped)

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """The samples of the lines that came since the last call; empty when none came in time.

        Raises:
            SensorError: when the port was unplugged or fails.
        """
        if self._port is None:
            raise SensorError(f"{self._device}: not open; open a source before it is read", catalogue.SOURCE_MISUSED)
        ends_s = time.monotonic() + timeout_s
        while True:
            poller = select.poll()
            poller.register(self._port, select.POLLIN)
            left_s = max(0.0, ends_s - time.monotonic())
            if not poller.poll(1000 * left_s):
                return ()
            try:
                data = os.read(self._port, READ_BYTES)
            except BlockingIOError:
                data = None
            except OSError as error:
                raise self._failure(error) from error
            if data == b"":
                raise self._failure(OSError(errno.EIO, "it was unplugged"))
            # A line that is not whole yet is no reason to return.
            if data and (items := self._items(data, time.monotonic())):
                return items
            if time.monotonic() >= ends_s:
                return ()

    def close(self) -> None:
        """Let the port go."""
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(OSError):
                os.close(port)

    def _items(self, data: bytes, arrival_s: float) -> list[Item]:
        before = self._lines.overlong, self._lines.garbled
        tables = [table for line in self._lines.feed(data) if (table := self._table(line)) is not None]
        for cause, now, then in (
            ("a line that is too long", self._lines.overlong, before[0]),
            ("a line that is no text; check the baud", self._lines.garbled, before[1]),
        ):
            if now > then:
                self.dropped.note(cause, count=now - then)
        items: list[Item] = []
        for signal in self._settings.signals:
            samples = self._samples(tables, signal)
            if samples is not None:
                items += self._intake.take(signal, samples, arrival_s)
        return items

    def _table(self, line: str) -> dict[str, str] | None:
        if line.startswith(COMMENT):
            return None
        parts = cells(line, self._settings.separator)
        if self._settings.columns not in (None, len(parts)):
            self.dropped.note("a line with too few or too many columns", line)
            return None
        table = labelled(parts)
        if not any(field in table for signal in self._settings.signals for field in signal.fields):
            self.dropped.note("a line without a column of any signal", line)
            return None
        return table

    def _samples(self, tables: Sequence[dict[str, str]], signal: Signal) -> Samples | None:
        """The signal's samples in the lines that came together."""
        field = self._settings.time
        rows: list[list[float]] = []
        times: list[float] = []
        for table in tables:
            # Lines of another signal lack all of the labels, or have nothing in the columns.
            if not any(table.get(each) for each in signal.fields):
                continue
            row = numbers(table, signal.fields)
            told = None if field is None else number(table.get(field.field, ""))
            if row is None or (field is not None and told is None):
                part = "a column that is no number" if row is None else "a time that is no number"
                self.dropped.note(f"{signal.name}: {part}", ",".join(table.values()))
                continue
            rows.append(row)
            if told is not None:
                times.append(told)
        if not rows:
            return None
        return Samples(values=np.array(rows), times=None if field is None else np.array(times))

    def _failure(self, error: OSError | termios.error) -> SensorError:
        number_, words = (*error.args, "", "")[:2]
        match number_:
            case errno.ENOENT | errno.ENXIO | errno.ENODEV | errno.EIO:
                there = _listed(BY_ID)
                remedy = f"it is not there or was unplugged; plug it in, or name one of {there}"
            case errno.EACCES | errno.EPERM:
                remedy = "this user may not read it; add the user to the group dialout"
            case errno.EAGAIN:
                remedy = "another process reads it; end that one"
            case errno.ENOTTY | errno.EINVAL:
                remedy = "it is no serial port; name one below /dev/serial/by-id"
            case _:
                remedy = f"it cannot be read ({words}); check cable and driver"
        return SensorError(f"{self._device}: {remedy}", catalogue.SENSOR_UNUSABLE)


def found(folder: Path = BY_ID) -> tuple[Found, ...]:
    """The serial ports that are plugged in, by the names that stay theirs; what their lines hold nobody knows."""
    return tuple(
        Found(
            kind="serial",
            name=path.name,
            text=f"serial port {path.name} ({path.resolve()})",
            toml=(
                f'[[sensors]]\nkind = "serial"\ndevice = "{path}"\nbaud = 115200\n'
                'signals = [{ name = "acc", fields = ["1", "2", "3"], rate_hz = 50 }]\n'
            ),
        )
        for path in _paths(folder)
    )


def _paths(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _listed(folder: Path) -> str:
    return ", ".join(path.name for path in _paths(folder)[:8]) or f"those in {folder}, which has none"


def _make_raw(port: int, speed: int) -> None:
    """Bytes as they come: no echo, no translation, no flow control, no carrier needed, and no hang-up at the end."""
    modes = termios.tcgetattr(port)
    modes[IFLAG] = termios.IGNBRK
    modes[OFLAG] = modes[LFLAG] = 0
    modes[CFLAG] = termios.CS8 | termios.CREAD | termios.CLOCAL
    modes[ISPEED] = modes[OSPEED] = speed
    # With 0 instead of 1, nothing to read would look like the end.
    modes[CC][termios.VMIN], modes[CC][termios.VTIME] = 1, 0
    termios.tcsetattr(port, termios.TCSANOW, modes)
    termios.tcflush(port, termios.TCIFLUSH)
