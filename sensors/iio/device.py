"""IIO devices: which there are, found by what identifies them, and what is wanted of one."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.iio.attributes import Folder, Kernel
from sensors.iio.axes import AXES, UNITS

DEVICE = "iio:device"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A modality and the kernel's kind of channel that gives it."""

    modality: Modality
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """How it is to run: at which rate, how long samples may gather, by which trigger; how the chip is mounted.

    `ranges` has the largest value that is expected of a kind of channel, in our unit.
    """

    rate_hz: float
    batch_s: float = 0.2
    trigger: str = ""
    mount: Sequence[float] = ()
    ranges: Mapping[str, float] = field(default_factory=dict)


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
