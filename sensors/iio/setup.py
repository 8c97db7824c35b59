"""An IIO device made ready to fill its buffer, and put back as it was.

After the kernel's Documentation/iio/iio_devbuf.rst and Documentation/ABI/testing/sysfs-bus-iio. The buffer's attributes
are in `buffer0` since Linux 5.12, before in `buffer` and `scan_elements`.
"""

import errno
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mekt import catalogue
from mekt.errors import SensorError
from sensors.iio.attributes import FORBIDDEN, GONE, Folder, Kernel, failure
from sensors.iio.axes import AXES, Axes, number, read_axes
from sensors.iio.device import DEVICE, Channel, Device, Wish
from sensors.iio.scan import STAMP, Element, Layout, scan_type
from sensors.iio.stamps import CLOCKS, DEFAULT_CLOCK, MONOTONIC
from sensors.iio.tuning import set_ranges, set_rate, set_trigger_rate

log = logging.getLogger(__name__)

# What the kernel keeps while nobody reads.
HELD_S = 4.0
LEAST_HELD = 16
TRIGGER = "trigger/current_trigger"
TIMESTAMP_CLOCK = "current_timestamp_clock"


class NoBufferError(Exception):
    """The device has no buffer that this process could use; the text says why, and what would help."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Running:
    """How a buffer runs: at `rate_hz`, by which `trigger` in words; how many seconds of samples the kernel holds.

    `layout` is that of a sample, `axes` by modality what its numbers mean, `clock` that which stamps it (None where
    that cannot be read here).
    """

    rate_hz: float
    trigger: str
    held_s: float
    layout: Layout
    axes: Mapping[str, Axes]
    clock: str | None


class Setup:
    """A device whose buffer runs between `start` and `stop`."""

    def __init__(self, device: Device, kernel: Kernel, channels: Sequence[Channel], wish: Wish) -> None:
        """Nothing is changed before `start`.

        Raises:
            NoBufferError: when no buffer has all of `channels`.
        """
        self._device, self._channels, self._wish = device, channels, wish
        self._folder = Folder(device.path, kernel)
        self._timer: Folder | None = None
        self._buffer, self._scan = self._places()

    def start(self) -> Running:
        """Make it ready, start it and say how it runs; where that fails, everything is as before.

        Raises:
            NoBufferError: when this process may not, or the driver cannot.
            OSError: when the device is gone, or another program uses it.
            SensorError: when its driver says what cannot be understood.
        """
        try:
            return self._start()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError) and error.errno in FORBIDDEN:
                raise NoBufferError(str(failure(error, self._device.said))) from error
            raise

    def stop(self) -> None:
        """Stop the buffer and put back what was changed; what does not work any more is passed over."""
        try:
            self._enable("0")
        except OSError as error:
            level = logging.DEBUG if error.errno in (*GONE, *FORBIDDEN) else logging.WARNING
            log.log(level, "%s: cannot be stopped: %s", self._device.said, error.strerror)
        self._folder.put_back()
        if self._timer is not None:
            self._timer.put_back()

    def _places(self) -> tuple[str, str]:
        """Where the buffer's attributes are, and its scan elements'."""
        wanted = [f"in_{each.kind}_{axis}_en" for each in self._channels for axis in AXES]
        for buffer, scan in (("buffer0", "buffer0"), ("buffer", "scan_elements")):
            if self._folder.has(f"{buffer}/enable") and all(self._folder.has(f"{scan}/{each}") for each in wanted):
                return buffer, scan
        raise NoBufferError(f"{self._device.said}: its driver has no buffer with {', '.join(wanted)}")

    def _start(self) -> Running:
        folder, wish = self._folder, self._wish
        if folder.text(f"{self._buffer}/enable") != "0":
            # A process that was killed has left it so.
            self._enable("0")
        rate_hz = set_rate(folder, [each.kind for each in self._channels], wish.rate_hz)
        set_ranges(folder, wish.ranges)
        clock = self._set_clock()
        trigger, timed_hz = self._set_trigger()
        rate_hz = timed_hz or rate_hz
        self._enable_channels()
        held = max(LEAST_HELD, math.ceil(HELD_S * rate_hz))
        self._try(f"{self._buffer}/length", str(held))
        self._try(f"{self._buffer}/watermark", str(max(1, min(held // 2, round(wish.batch_s * rate_hz)))))
        # Some chips change format or scale with the rate or with what is enabled: these are asked last.
        layout = self._read_layout()
        axes = {each.modality.name: read_axes(folder, each.kind, wish.mount) for each in self._channels}
        try:
            self._enable("1")
        except OSError as error:
            if error.errno in (*FORBIDDEN, *GONE, errno.EBUSY):
                raise
            raise NoBufferError(
                f"{self._device.said}: the buffer cannot be enabled with {trigger} ({error.strerror});"
                f" {self._trigger_advice()}"
            ) from error
        return Running(rate_hz=rate_hz, trigger=trigger, held_s=held / rate_hz, layout=layout, axes=axes, clock=clock)

    def _enable(self, text: str) -> None:
        self._folder.kernel.write(self._folder.path / self._buffer / "enable", text)

    def _set_clock(self) -> str | None:
        """The clock that stamps samples: the monotonic one where the driver lets one choose."""
        if not self._folder.has(TIMESTAMP_CLOCK):
            return DEFAULT_CLOCK
        self._try(TIMESTAMP_CLOCK, MONOTONIC)
        clock = self._folder.text(TIMESTAMP_CLOCK) or DEFAULT_CLOCK
        return clock if clock in CLOCKS else None

    def _set_trigger(self) -> tuple[str, float | None]:
        """The trigger in words, once it is chosen, and its own rate where it has one.

        It is that of the settings, else the present one, else the chip's own.
        """
        folder, wanted = self._folder, self._wish.trigger
        if not folder.has(TRIGGER):
            return "its own clock", None
        present, there = folder.text(TRIGGER) or "", self._triggers()
        if not wanted:
            own = f"{self._device.name}-dev{folder.path.name.removeprefix(DEVICE)}"
            wanted = present or (own if own in there else "")
        if not wanted:
            return "no trigger", None
        if wanted != present:
            if wanted not in there:
                raise NoBufferError(f'{self._device.said}: no trigger "{wanted}"; {self._trigger_advice()}')
            folder.change(TRIGGER, wanted)
        if wanted not in there:
            return f"trigger {wanted}", None
        self._timer = Folder(folder.path.parent / there[wanted], folder.kernel)
        return f"trigger {wanted}", set_trigger_rate(self._timer, self._wish.rate_hz)

    def _triggers(self) -> dict[str, str]:
        """The triggers' names, and of each its folder's."""
        root, kernel = self._folder.path.parent, self._folder.kernel
        entries = (each for each in kernel.names(root) if each.startswith("trigger"))
        return {name: each for each in entries if (name := Folder(root / each, kernel).text("name"))}

    def _trigger_advice(self) -> str:
        there = ", ".join(self._triggers()) or "none"
        return (
            f"triggers there are: {there}; name one as `trigger`, or make a timer: modprobe iio-trig-hrtimer &&"
            " mkdir /sys/kernel/config/iio/triggers/hrtimer/mekt"
        )

    def _enable_channels(self) -> None:
        """Enable what is wanted and the time stamp, and nothing else as far as the driver lets one."""
        wanted = {f"in_{each.kind}_{axis}_en" for each in self._channels for axis in AXES}
        stamp = f"in_{STAMP}_en"
        for each in self._folder.kernel.names(self._folder.path / self._scan):
            if each.endswith("_en") and each not in wanted | {stamp}:
                self._try(f"{self._scan}/{each}", "0")
        for each in sorted(wanted):
            self._folder.change(f"{self._scan}/{each}", "1")
        self._try(f"{self._scan}/{stamp}", "1")

    def _try(self, name: str, text: str) -> None:
        """Change what may well be missing or fixed."""
        if not self._folder.has(name):
            return
        try:
            self._folder.change(name, text)
        except OSError as error:
            if error.errno in (errno.EBUSY, *FORBIDDEN, *GONE) and name != TIMESTAMP_CLOCK:
                raise
            log.debug("%s: %s does not become %s: %s", self._device.said, name, text, error.strerror)

    def _read_layout(self) -> Layout:
        elements = []
        for each in self._folder.kernel.names(self._folder.path / self._scan):
            if each.endswith("_en") and self._folder.text(f"{self._scan}/{each}") == "1":
                stem = each.removesuffix("_en")
                index = self._folder.parsed(f"{self._scan}/{stem}_index", number)
                kind = self._folder.parsed(f"{self._scan}/{stem}_type", scan_type)
                elements.append(Element(name=stem.removeprefix("in_"), index=int(index), type=kind))
        try:
            layout = Layout(elements)
        except ValueError as error:
            raise SensorError(f"{self._device.said}: {error}", catalogue.SENSOR_UNUSABLE) from error
        wanted = [f"{each.kind}_{axis}" for each in self._channels for axis in AXES]
        if missing := [each for each in wanted if each not in layout]:
            raise NoBufferError(f"{self._device.said}: its driver does not enable {', '.join(missing)}")
        return layout
