"""A device's attributes, which are files of the kernel's: read, changed, put back; and what is said of a refusal."""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from mekt import catalogue
from mekt.errors import SensorError

log = logging.getLogger(__name__)
T = TypeVar("T")

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


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip(" \t\r\n\0")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of a descriptor say which file it was."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
