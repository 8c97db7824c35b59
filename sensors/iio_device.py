"""An IIO device as the kernel shows it in files: found by what identifies it, read, changed, and put back."""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from mekt import catalogue
from mekt.errors import SensorError
from sensors.iio_axes import AXES, UNITS, UPRIGHT, Axes, matrix, names, number

log = logging.getLogger(__name__)
T = TypeVar("T")

DEVICE = "iio:device"
PAGE_BYTES = 4096
# Gives the group `iio` what the owner of the device's files has; `g=u` leaves alone what nobody may write.
UDEV_RULE = (
    'SUBSYSTEM=="iio", KERNEL=="iio:device*", GROUP="iio", MODE="0660", '
    "RUN+=\"/bin/sh -c 'chgrp -R iio /sys%p && chmod -R g=u /sys%p'\""
)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
GONE = (errno.ENODEV, errno.ENXIO, errno.ENOENT)


class Kernel:
    """The calls by which the kernel is used; those of files raise OSError, with the file's name where it has one."""

    def seconds(self, clock: int = time.CLOCK_MONOTONIC) -> float:
        """What a clock shows."""
        return time.clock_gettime(clock)

    def wait(self, duration_s: float) -> None:
        """Let time pass."""
        time.sleep(duration_s)

    def names(self, folder: Path) -> list[str]:
        """What is in a folder, in order; nothing when it is not there."""
        return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []

    def read(self, path: Path) -> str:
        """An attribute's text without the line's end."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _naming(path):
                return _text(os.read(descriptor, PAGE_BYTES))
        finally:
            os.close(descriptor)

    def write(self, path: Path, text: str) -> None:
        """Set an attribute, in one call, as the kernel takes it."""
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            with _naming(path):
                os.write(descriptor, f"{text}\n".encode())
        finally:
            os.close(descriptor)

    def open(self, path: Path) -> int:
        """A file that is read again and again without waiting; to be closed with `os.close`."""
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def take(self, descriptor: int, size: int) -> bytes:
        """What a device node has, at most `size` bytes."""
        return os.read(descriptor, size)

    def again(self, descriptor: int) -> str:
        """An open attribute's text as it is now."""
        return _text(os.pread(descriptor, PAGE_BYTES, 0))


class Folder:
    """A folder of attributes; `put_back` undoes, last first, whatever was changed with `change`."""

    def __init__(self, path: Path, kernel: Kernel) -> None:
        self.path, self.kernel = path, kernel
        self._before: list[tuple[str, str]] = []

    def has(self, name: str) -> bool:
        """Whether there is such an attribute."""
        return (self.path / name).exists()

    def first(self, several: Sequence[str]) -> str | None:
        """Which of these attributes there is, the first that is."""
        return next((each for each in several if self.has(each)), None)

    def text(self, name: str) -> str | None:
        """What an attribute says; None when it is not there."""
        try:
            return self.kernel.read(self.path / name)
        except FileNotFoundError:
            return None

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        """What an attribute means.

        Raises:
            SensorError: when it means nothing.
        """
        text = self.kernel.read(self.path / name)
        try:
            return parse(text)
        except ValueError as error:
            raise SensorError(
                f"{self.path / name}: {error}; the driver may be broken, `dmesg` may say more",
                catalogue.SENSOR_UNUSABLE,
            ) from error

    def change(self, name: str, text: str) -> None:
        """Set an attribute, unless it says so already."""
        before = self.kernel.read(self.path / name)
        if before != text:
            self.kernel.write(self.path / name, text)
            self._before.append((name, before))

    def put_back(self) -> None:
        """Undo all changes, as far as the device still is there and lets one."""
        while self._before:
            name, before = self._before.pop()
            try:
                self.kernel.write(self.path / name, before)
            except OSError as error:
                level = logging.DEBUG if error.errno in GONE else logging.WARNING
                log.log(level, "%s: cannot be put back to %s: %s", self.path / name, before, error.strerror)


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What identifies an IIO device, and where it is at present; `kinds` are those that it has three axes of.

    `name` is the driver's (mostly the chip's), `label` the board maker's, `at` the bus address, such as `1-0068` or
    `spi0.0`.
    """

    path: Path
    name: str
    label: str
    at: str
    kinds: tuple[str, ...]

    @property
    def said(self) -> str:
        """The device for people."""
        label = f", label {self.label}" if self.label else ""
        return f"{self.name or 'a nameless device'} at {self.at}{label} ({', '.join(self.kinds) or 'no motion'})"


def devices(root: Path, kernel: Kernel) -> list[Device]:
    """All IIO devices below `root`, in the order of their numbers; one that vanishes meanwhile is left out."""
    there = []
    for entry in sorted(kernel.names(root), key=lambda each: (len(each), each)):
        if entry.startswith(DEVICE):
            with contextlib.suppress(OSError):
                there.append(_device(Folder(root / entry, kernel)))
    return there


def find(root: Path, kernel: Kernel, *, name: str, label: str, at: str) -> Device:
    """The one device that is called so; what is empty does not matter.

    Raises:
        SensorError: when there is none, or more than one.
    """
    there = devices(root, kernel)
    wanted = {"name": name, "label": label, "at": at}
    fit = [each for each in there if all(not text or getattr(each, key) == text for key, text in wanted.items())]
    if len(fit) == 1:
        return fit[0]
    asked = ", ".join(f'{key} "{text}"' for key, text in wanted.items() if text)
    if fit:
        raise SensorError(
            f"{root}: {len(fit)} devices have {asked}: {'; '.join(each.said for each in fit)}; add `at` or `label`"
            " to the [[sensors]] table",
            catalogue.SENSOR_UNUSABLE,
        )
    known = "; ".join(each.said for each in there) or "nothing: is the driver loaded, and the chip in the device tree?"
    raise SensorError(f"{root}: no device has {asked}; there is {known}", catalogue.SENSOR_UNUSABLE)


def read_axes(folder: Folder, kind: str, mount: Sequence[float] = ()) -> Axes:
    """How the raw numbers of a kind are to be understood, by the driver's attributes; by `mount` where it is given.

    Raises:
        SensorError: when an attribute cannot be understood.
    """
    scale, offset = (
        [folder.parsed(found, number) if (found := folder.first(names(kind, axis, what))) else absent for axis in AXES]
        for what, absent in (("scale", 1.0), ("offset", 0.0))
    )
    if not mount:
        # The matrix is of all three axes, so that where it is said of each, all say the same.
        found = folder.first(names(kind, "x", "mount_matrix"))
        mount = folder.parsed(found, matrix) if found else UPRIGHT
    return Axes(scale=np.array(scale), offset=np.array(offset), mount=np.reshape(mount, (3, 3)), factor=UNITS[kind][1])


def failure(error: OSError, who: str) -> SensorError:
    """What is said of a device whose file the system refuses, with what to do about it."""
    where = error.filename or who
    reason = error.strerror or type(error).__name__
    if error.errno == errno.EROFS:
        advice = "/sys is read-only here: let the service or the container write to it (ProtectKernelTunables=no)"
    elif error.errno in FORBIDDEN:
        advice = (
            "make the group (groupadd --system iio), put Mekt's user into it (usermod -aG iio USER), write the line"
            f" {UDEV_RULE} into /etc/udev/rules.d/60-iio.rules, then udevadm trigger --subsystem-match=iio"
        )
    elif error.errno == errno.EBUSY:
        advice = "another program uses it (iio-sensor-proxy?): stop that program"
    elif error.errno in GONE:
        advice = "it was unplugged or its driver was unloaded: plug it in again"
    else:
        advice = "look at its connection; `dmesg` may say more"
    at = where if where == who else f"{who}: {where}"
    return SensorError(f"{at}: {reason}; {advice}", catalogue.SENSOR_UNUSABLE)


def _device(folder: Folder) -> Device:
    kinds = tuple(kind for kind in UNITS if all(_channel(folder, f"{kind}_{axis}") for axis in AXES))
    return Device(
        path=folder.path,
        name=folder.text("name") or "",
        label=folder.text("label") or "",
        at=folder.path.resolve().parent.name,
        kinds=kinds,
    )


def _channel(folder: Folder, channel: str) -> bool:
    return folder.first([f"in_{channel}_raw", f"buffer0/in_{channel}_en", f"scan_elements/in_{channel}_en"]) is not None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip(" \t\r\n\0")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of a descriptor say which file it was."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
