"""What a check waits for, on a machine that is slow: never for a time, always for what must happen."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 180.0
IIO = Path("/sys/bus/iio/devices")


def seconds() -> float:
    """CLOCK_MONOTONIC."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def until(condition: Callable[[], object], otherwise: str | Callable[[], str]) -> None:
    """Wait for it; the check fails when it takes far too long."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, otherwise if isinstance(otherwise, str) else otherwise()
        time.sleep(0.05)


def iio_devices(name: str) -> list[Path]:
    """The IIO devices of this name that are there now."""
    return [path.parent for path in sorted(IIO.glob("iio:device*/name")) if path.read_text().strip() == name]


def iio_device(name: str) -> Path:
    """The IIO device of this name, once it is there."""
    until(lambda: iio_devices(name), f"no IIO device {name} appeared")
    return iio_devices(name)[0]
