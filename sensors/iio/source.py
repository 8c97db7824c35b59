"""Accelerometers, gyroscopes and magnetometers by Linux's Industrial I/O subsystem, with nothing but its files."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality, ModalityName
from mekt.schema import Bounds, Positive
from sensors.found import Found
from sensors.iio.attributes import Kernel, failure
from sensors.iio.axes import AXES, UNITS
from sensors.iio.buffer import BufferReader
from sensors.iio.device import Channel, Device, Wish, devices, find
from sensors.iio.polling import PollReader
from sensors.iio.setup import NoBufferError
from sensors.source import Block, Item, Latency, SensedNames, named_once

log = logging.getLogger(__name__)

ROOT, NODES = "/sys/bus/iio/devices", "/dev"
# The kernel's kinds of channel by our names.
KINDS = {"acc": "accel", "gyro": "anglvel", "mag": "magn"}
# When nothing comes for so long, and for so many samples, the device is opened anew.
SILENT_S, SILENT_SAMPLES = 10.0, 20
# A rate this much off is worth a word; chips offer 52 Hz for 50.
RATE_SLACK = 0.1
Kind = Literal["accel", "anglvel", "magn"]
Word = Annotated[str, Bounds(longest=128)]


@dataclass(frozen=True, kw_only=True, slots=True)
class IioSettings:
    """One IIO device: accelerometer (`acc`, g), gyroscope (`gyro`, rad/s), magnetometer (`mag`, uT), or several in one.

    Which device, say `name` (its `name` file, mostly the chip), `label` (the board maker's) or `at` (its bus address,
    such as `1-0068`); the number in `iio:device0` changes. `channels` gives a modality of another name its kind, as in
    `{acc_waist = "accel"}`.

    `rate_hz` is what the device is set to, or the nearest that it offers. Samples gather for up to `batch_s` before
    they are read, which saves power. `access` is "buffer" (whole samples, stamped by the kernel), "polled" (attributes,
    axis after axis: no rights needed), or "any": the buffer, and where it cannot be used, polled. `trigger` names what
    starts a sample, where the present trigger is not the right one. `mount_matrix` (nine numbers by rows) replaces the
    driver's. `ranges` are the largest values that are expected, each in its modality's unit, as in `{acc = 8}`: many
    chips begin at 2 g, and people reach 8 when they fall. Stamps are `latency_s` later than what they are of, such
    as by the delay of the chip's filter. `root` and `nodes` are the kernel's folders.
    """

    kind: Literal["iio"] = "iio"
    modalities: SensedNames
    name: Word = ""
    label: Word = ""
    at: Word = ""
    channels: dict[ModalityName, Kind] = field(default_factory=dict)
    rate_hz: Annotated[float, Bounds(low=0.1, high=10_000)] = 50.0
    batch_s: Annotated[float, Bounds(low=0, high=5)] = 0.2
    access: Literal["any", "buffer", "polled"] = "any"
    trigger: Word = ""
    mount_matrix: Annotated[tuple[Annotated[float, Bounds(low=-10, high=10)], ...], Bounds(longest=9)] = ()
    ranges: dict[ModalityName, Positive] = field(default_factory=dict)
    latency_s: Latency = 0.0
    root: Annotated[str, Bounds(shortest=1, longest=1000)] = ROOT
    nodes: Annotated[str, Bounds(shortest=1, longest=1000)] = NODES

    def __post_init__(self) -> None:
        named_once(self.modalities)
        if not (self.name or self.label or self.at):
            raise ValueError('name: say which device by name, label or at, such as name = "mpu6050"')
        kinds = {each: self.channels.get(each) or KINDS.get(each) for each in self.modalities}
        if unknown := [each for each, kind in kinds.items() if kind is None]:
            raise ValueError(
                f"modalities: {', '.join(unknown)} is none of {', '.join(KINDS)}; say in channels which kind it is,"
                f' such as {{{unknown[0]} = "accel"}}'
            )
        if len(set(kinds.values())) < len(kinds):
            raise ValueError("channels: two modalities are of one kind; a device has one of each")
        for name, table in (("channels", self.channels), ("ranges", self.ranges)):
            if idle := [each for each in table if each not in self.modalities]:
                raise ValueError(f"{name}: {', '.join(idle)} is not among the modalities")
        if len(self.mount_matrix) not in (0, 9):
            raise ValueError(f"mount_matrix: expected nine numbers by rows, got {len(self.mount_matrix)}")

    def source(self, base: Path) -> "IioSource":
        """The device as a source; it is looked for when it is opened."""
        return IioSource(self, base)


class IioSource:
    """A device's samples, by its buffer or polled; times are CLOCK_MONOTONIC's."""

    def __init__(self, settings: IioSettings, base: Path = Path("/"), kernel: Kernel | None = None) -> None:
        """Nothing is touched before `open`; relative paths of the settings start at `base`."""
        self._settings = settings
        self._root, self._nodes = base / settings.root, base / settings.nodes
        self._kernel = kernel or Kernel()
        kinds = {each: settings.channels.get(each) or KINDS[each] for each in settings.modalities}
        self._channels = [
            Channel(
                modality=Modality(name=each, shape=(len(AXES),), rate_hz=settings.rate_hz, unit=UNITS[kind][0]),
                kind=kind,
            )
            for each, kind in kinds.items()
        ]
        self.modalities = tuple(each.modality for each in self._channels)
        self._reader: BufferReader | PollReader | None = None
        self._who, self._heard_s, self._told = "", 0.0, ""

    def open(self) -> None:
        """Find the device, whatever its number is now, and start it.

        Raises:
            SensorError: when it is not there, lacks a modality, or cannot be used.
        """
        self.close()
        self._who = str(self._root)
        try:
            device = self._found()
            self._who = device.said
            self._reader = self._started(device)
        except OSError as error:
            raise failure(error, self._who) from error
        self._heard_s = self._kernel.seconds()
        log.info("%s: %s", self._who, self._reader.said)
        if abs(self._reader.rate_hz / self._settings.rate_hz - 1) > RATE_SLACK:
            log.warning(
                "%s: measures at %g Hz, not at %g; windows of a faster rate are filled up between its samples",
                self._who,
                self._reader.rate_hz,
                self._settings.rate_hz,
            )

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What has come since the last call; None never, for a sensor does not end.

        Raises:
            SensorError: when the device is gone, fails, gives only garbage, or nothing at all for a while.
        """
        if self._reader is None:
            raise SensorError("the device was not opened; open a source before it is read", catalogue.SOURCE_MISUSED)
        try:
            items = self._reader.read(timeout_s)
        except OSError as error:
            raise failure(error, self._who) from error
        now_s = self._kernel.seconds()
        silent_s = max(SILENT_S, SILENT_SAMPLES / self._settings.rate_hz)
        if items:
            self._heard_s = now_s
        elif now_s - self._heard_s > silent_s:
            raise SensorError(
                f"{self._who}: nothing for {silent_s:g} s, {self._reader.said}; look whether its interrupt line is"
                ' connected, name another trigger, or set access = "polled"',
                catalogue.SENSOR_UNUSABLE,
            )
        return [each.earlier(self._settings.latency_s) if isinstance(each, Block) else each for each in items]

    def ranges(self) -> Mapping[str, float]:
        """How far each modality reaches as the device is set, in its unit, where its driver says so."""
        return {} if self._reader is None else self._reader.ranges()

    def close(self) -> None:
        """Stop the device, and put back what was changed."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _found(self) -> Device:
        wanted = self._settings
        device = find(self._root, self._kernel, name=wanted.name, label=wanted.label, at=wanted.at)
        missing = [each.modality.name for each in self._channels if each.kind not in device.kinds]
        if missing:
            raise SensorError(
                f"{device.said}: has no three axes for {', '.join(missing)}; ask for what it has, or name another",
                catalogue.MODALITY_MISSING,
            )
        return device

    def _started(self, device: Device) -> BufferReader | PollReader:
        wanted = self._settings
        ranges = {each.kind: wanted.ranges.get(each.modality.name) for each in self._channels}
        wish = Wish(
            rate_hz=wanted.rate_hz,
            batch_s=wanted.batch_s,
            trigger=wanted.trigger,
            mount=wanted.mount_matrix,
            ranges={kind: largest for kind, largest in ranges.items() if largest is not None},
        )
        if wanted.access != "polled":
            try:
                return BufferReader(device, self._kernel, self._channels, wish, self._nodes)
            except NoBufferError as error:
                if wanted.access == "buffer":
                    raise SensorError(str(error), catalogue.SENSOR_UNUSABLE) from error
                if str(error) != self._told:
                    log.warning("%s; it is polled, which gives poorer samples", error)
                self._told = str(error)
        return PollReader(device, self._kernel, self._channels, wish)


def found(root: Path = Path(ROOT), kernel: Kernel | None = None) -> tuple[Found, ...]:
    """The devices of this machine that have three axes of something, each with the table that opens it."""
    there = [each for each in devices(root, kernel or Kernel()) if each.kinds]
    return tuple(_offer(each, there) for each in there)


def _offer(device: Device, there: Sequence[Device]) -> Found:
    keys = {"name": device.name, "label": device.label, "at": device.at}
    # The first that is its own; the bus address is, where nothing else is.
    own = next((key for key in ("label", "name") if keys[key] and _alone(key, device, there)), "at")
    modalities = [ours for ours, kind in KINDS.items() if kind in device.kinds]
    lines = [
        "[[sensors]]",
        'kind = "iio"',
        f"{own} = {json.dumps(keys[own])}",
        f"modalities = {json.dumps(modalities)}",
    ]
    return Found(kind="iio", name=keys[own], text=device.said, toml="\n".join(lines) + "\n")


def _alone(key: str, device: Device, there: Sequence[Device]) -> bool:
    return [getattr(each, key) for each in there].count(getattr(device, key)) == 1
