"""vivid, the kernel's camera without a camera, and its controls (Documentation/admin-guide/media/vivid.rst)."""

import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

QUERYCTRL, S_CTRL, NEXT = 0xC0445624, 0xC008561C, 0x8000_0000
BLACK, WHITE = 5, 6
NO_TEXT = 2
START_OF_EXPOSURE = 1
DRIVER = Path("/sys/bus/platform/drivers/vivid")


class Controls:
    """What vivid can be told, while the context lasts."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._fd = os.open(self._path, os.O_RDWR)
        self._ids: dict[str, int] = {}
        asked = bytearray(68)
        struct.pack_into("<I", asked, 0, NEXT)
        while True:
            try:
                fcntl.ioctl(self._fd, QUERYCTRL, asked)
            except OSError:
                break
            number, name = struct.unpack_from("<I4x32s", asked)
            self._ids[name.split(b"\0")[0].decode()] = number
            asked = bytearray(68)
            struct.pack_into("<I", asked, 0, number | NEXT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    @property
    def names(self) -> list[str]:
        """All controls."""
        return sorted(self._ids)

    def set(self, name: str, value: int) -> None:
        """Set one, or press a button."""
        fcntl.ioctl(self._fd, S_CTRL, struct.pack("<Ii", self._ids[name], value))


def node() -> str:
    """Where vivid's camera is at present."""
    nodes = [
        path for path in Path("/sys/class/video4linux").glob("video*") if (path / "name").read_text()[:5] == "vivid"
    ]
    [path] = nodes
    return f"/dev/{path.name}"


def set_control(name: str, value: int) -> None:
    """Set one control of the one camera."""
    with Controls(node()) as controls:
        controls.set(name, value)


def stand() -> None:
    """A white wall without text. Frames bear the time at which they begin: by default that of an end yet to come."""
    with Controls(node()) as controls:
        controls.set("OSD Text Mode", NO_TEXT)
        controls.set("Timestamp Source", START_OF_EXPOSURE)
        controls.set("Test Pattern", WHITE)


def unbind() -> None:
    """Take the device from its driver, as if the camera were pulled out."""
    (DRIVER / "unbind").write_text("vivid.0")


def bind() -> None:
    """Give it back."""
    (DRIVER / "bind").write_text("vivid.0")
