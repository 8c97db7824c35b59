"""Samples of an IIO device read from its attributes, one axis after the other, where its buffer cannot be used.

The three numbers are not of one instant: each is read, over the bus, when the one before is there. At 400 kHz that is a
third of a millisecond apart, with slow drivers several. For the movements of people it will do; it costs more power
than a buffer, and samples come by this process's clock and with its delays.
"""

import errno
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mekt import catalogue
from mekt.errors import SensorError
from sensors.iio.attributes import FORBIDDEN, GONE, Folder, Kernel
from sensors.iio.axes import AXES, Axes, read_axes
from sensors.iio.device import Channel, Device, Wish
from sensors.iio.tuning import bits_of, set_ranges, set_rate
from sensors.source import Block, Item

log = logging.getLogger(__name__)

# So many readings may fail in a row before the device counts as lost: a bus has its moments.
MOST_FAILURES = 10
LONGEST_NUMBER = 32


class PollReader:
    """Reads attributes at a steady rate; `said` is how, for people, and `rate_hz` the chip's own rate.

    One thread at a time uses it.
    """

    def __init__(self, device: Device, kernel: Kernel, channels: Sequence[Channel], wish: Wish) -> None:
        """Open the attributes.

        Raises:
            OSError: when the device is gone.
            SensorError: when it lacks an attribute, or its driver says what cannot be understood.
        """
        self._device, self._kernel, self._channels = device, kernel, channels
        self._folder = Folder(device.path, kernel)
        self._period_s = 1 / wish.rate_hz
        self._descriptors: dict[str, list[int]] = {}
        self._axes: dict[str, Axes] = {}
        self._failures = 0
        self.rate_hz = wish.rate_hz
        try:
            try:
                self.rate_hz = set_rate(self._folder, [each.kind for each in channels], wish.rate_hz)
                set_ranges(self._folder, wish.ranges)
            except OSError as error:
                # Whatever the chip's rate and range are: without rights it is asked as it is.
                if error.errno not in FORBIDDEN:
                    raise
                log.warning("%s: rate and range stay as they are: %s", device.said, error.strerror)
            for each in channels:
                self._open(each, wish)
        except BaseException:
            self.close()
            raise
        self.said = f"polled at {wish.rate_hz:g} Hz, axis after axis, which are not of one instant"
        # Sample k is due at the beginning and k periods, so that no delay adds up.
        self._began_s, self._next = kernel.seconds(), 0

    def read(self, timeout_s: float) -> list[Item]:
        """The samples that fall due within `timeout_s`, of each modality a block.

        Raises:
            OSError: when the device is gone, used by another program, or fails again and again.
            SensorError: when it gives no numbers, again and again.
        """
        ends_s = self._kernel.seconds() + timeout_s
        samples: dict[str, list[tuple[float, list[float]]]] = {each.modality.name: [] for each in self._channels}
        while True:
            now_s = self._kernel.seconds()
            due_s = self._began_s + self._next * self._period_s
            if due_s > now_s:
                if due_s > ends_s:
                    if ends_s > now_s:
                        self._kernel.wait(ends_s - now_s)
                    break
                self._kernel.wait(due_s - now_s)
                if self._kernel.seconds() < due_s:
                    continue
            # This one stands for all that fell due while nobody read: what is missed is not made up for.
            due = int((self._kernel.seconds() - self._began_s) / self._period_s)
            self._next = max(self._next, due) + 1
            for each in self._channels:
                sample = self._sample(each)
                if sample is not None:
                    samples[each.modality.name].append(sample)
            if self._kernel.seconds() >= ends_s:
                break
        return [
            self._block(each, samples[each.modality.name]) for each in self._channels if samples[each.modality.name]
        ]

    def ranges(self) -> dict[str, float]:
        """How far each modality reaches, in its unit, where the device has a buffer whose numbers say so."""
        bits = {each.modality.name: bits_of(self._folder, each.kind) for each in self._channels}
        return {name: self._axes[name].reach(each) for name, each in bits.items() if each is not None}

    def close(self) -> None:
        """Let the attributes go, and put back the rate."""
        for descriptors in self._descriptors.values():
            for each in descriptors:
                os.close(each)
        self._descriptors = {}
        self._folder.put_back()

    def _open(self, channel: Channel, wish: Wish) -> None:
        opened = self._descriptors.setdefault(channel.modality.name, [])
        for axis in AXES:
            name = f"in_{channel.kind}_{axis}_raw"
            try:
                opened.append(self._kernel.open(self._folder.path / name))
            except FileNotFoundError as error:
                if not self._folder.path.is_dir():
                    raise
                raise SensorError(
                    f"{self._device.said}: has no {name} to read; ask for what it has", catalogue.MODALITY_MISSING
                ) from error
        self._axes[channel.modality.name] = read_axes(self._folder, channel.kind, wish.mount)

    def _sample(self, channel: Channel) -> tuple[float, list[float]] | None:
        """The time in the middle of the reading and the raw numbers; None when this once there are none."""
        began_s = self._kernel.seconds()
        try:
            raw = [_number(self._kernel.again(each)) for each in self._descriptors[channel.modality.name]]
        except (OSError, ValueError) as error:
            self._failures += 1
            lost = isinstance(error, OSError) and error.errno in (*GONE, *FORBIDDEN, errno.EBUSY)
            if lost or (isinstance(error, OSError) and self._failures >= MOST_FAILURES):
                raise
            if self._failures >= MOST_FAILURES:
                raise SensorError(
                    f"{self._device.said}: gives no numbers ({error}); its driver may be broken",
                    catalogue.SENSOR_UNUSABLE,
                ) from error
            log.debug("%s: a sample is lost: %s", self._device.said, error)
            return None
        self._failures = 0
        return (began_s + self._kernel.seconds()) / 2, raw

    def _block(self, channel: Channel, samples: Sequence[tuple[float, list[float]]]) -> Block:
        raw: Any = np.array([values for _, values in samples], dtype=np.float64)
        t_s = np.array([t for t, _ in samples])
        name = channel.modality.name
        return Block(modality=name, t_s=t_s, values=self._axes[name].values(raw))


def _number(text: str) -> float:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"expected a number, got {text[:LONGEST_NUMBER]!r}...")
    return float(text)
