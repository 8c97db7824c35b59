"""Samples out of the buffer of an IIO device: whole ones, stamped by the kernel, read without waiting.

Shapes: n samples of s bytes.
"""

import errno
import logging
import os
import select
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from sensors.iio.attributes import FORBIDDEN, Kernel, failure
from sensors.iio.axes import AXES
from sensors.iio.device import Channel, Device, Wish
from sensors.iio.scan import STAMP
from sensors.iio.setup import NoBufferError, Setup
from sensors.iio.stamps import Arrivals, Stamps, plausible
from sensors.source import Block, Floats, Item, Seconds

log = logging.getLogger(__name__)

CHUNK_BYTES, MOST_CHUNKS = 16_384, 16
# When so many batches in a row make no sense, the reading is out of step and starts anew.
MOST_SENSELESS = 20


class BufferReader:
    """A running buffer; `said` is how it runs, for people, at `rate_hz`. One thread at a time uses it."""

    def __init__(self, device: Device, kernel: Kernel, channels: Sequence[Channel], wish: Wish, nodes: Path) -> None:
        """Start the buffer; its device node is in the folder `nodes`.

        Raises:
            NoBufferError: when it has none, or none that this process may use.
            OSError: when it is gone, or another program uses it.
            SensorError: when its driver says what cannot be understood.
        """
        self._device, self._kernel, self._channels = device, kernel, channels
        self._setup = Setup(device, kernel, channels, wish)
        # Only one process can have the node open: who gets it need not care for what runs still.
        self._descriptor = self._opened(nodes / device.path.name)
        try:
            self._runs = self._setup.start()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        clocked = self._runs.clock if STAMP in self._runs.layout else None
        self._stamps = None if clocked is None else Stamps(clocked, kernel.seconds)
        self._arrivals = Arrivals(self._runs.rate_hz)
        # The beginning of a sample whose end has not come; batches in a row that made no sense; whether one did.
        self._part, self._senseless, self._trusted = b"", 0, False
        stamps = "without time stamps" if clocked is None else f"stamped by the {clocked} clock"
        self.rate_hz = self._runs.rate_hz
        self.said = f"buffered at {self._runs.rate_hz:g} Hz by {self._runs.trigger}, {stamps}"

    def read(self, timeout_s: float) -> list[Item]:
        """What has come, of each modality a block; empty when nothing has in time.

        Raises:
            OSError: when the device is gone or fails.
            SensorError: when it gives nothing but garbage.
        """
        ready = self._poll.poll(max(0.0, timeout_s) * 1000)
        # Samples below the watermark, or a device that is gone, are not always "ready": it is read in any case.
        data = self._taken()
        if not data and any(events & ~select.POLLIN for _, events in ready):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        data = self._part + data
        rows = self._runs.layout.rows(data)
        self._part = data[rows.size :]
        return self._blocks(rows) if len(rows) else []

    def ranges(self) -> dict[str, float]:
        """How far each modality reaches, in its unit."""
        bits = {each.modality.name: self._runs.layout.bits(f"{each.kind}_x") for each in self._channels}
        return {name: self._runs.axes[name].reach(each) for name, each in bits.items()}

    def close(self) -> None:
        """Stop the buffer and put back what was changed."""
        self._setup.stop()
        os.close(self._descriptor)

    def _opened(self, node: Path) -> int:
        try:
            return self._kernel.open(node)
        except FileNotFoundError as error:
            raise NoBufferError(
                f"{self._device.said}: there is no {node}; let udev make it, or give it to the container"
            ) from error
        except OSError as error:
            if error.errno in FORBIDDEN:
                raise NoBufferError(str(failure(error, self._device.said))) from error
            raise

    def _taken(self) -> bytes:
        """What the node has now, up to a bound."""
        chunks: list[bytes] = []
        while len(chunks) < MOST_CHUNKS:
            try:
                chunk = self._kernel.take(self._descriptor, CHUNK_BYTES)
            except BlockingIOError:
                break
            if not chunk:
                if chunks:
                    break
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            chunks.append(chunk)
        return b"".join(chunks)

    def _blocks(self, rows: NDArray[np.uint8]) -> list[Item]:
        now_s = self._kernel.seconds()
        t_s = self._times(rows, now_s)
        if t_s is None:
            log.warning("%s: the clock was set; %d samples have no time", self._device.said, len(rows))
            return []
        sound = plausible(t_s, now_s, self._runs.held_s)
        if not sound.any():
            self._senseless += 1
            if self._senseless >= MOST_SENSELESS:
                raise SensorError(
                    f"{self._device.said}: its time stamps have ceased to be times; it has to be opened anew",
                    catalogue.SENSOR_UNUSABLE,
                )
            return []
        self._senseless = 0
        rows, t_s = rows[sound], t_s[sound]
        return [Block(modality=each.modality.name, t_s=t_s, values=self._values(rows, each)) for each in self._channels]

    def _values(self, rows: NDArray[np.uint8], channel: Channel) -> Floats:
        columns = [self._runs.layout.column(rows, f"{channel.kind}_{axis}") for axis in AXES]
        raw = np.stack([each.astype(np.float64) for each in columns], axis=1)
        return self._runs.axes[channel.modality.name].values(raw)

    def _times(self, rows: NDArray[np.uint8], now_s: float) -> Seconds | None:
        """Monotonic times (n,); None when the clock was set since the last batch."""
        if self._stamps is not None:
            t_s = self._stamps.times(self._runs.layout.column(rows, STAMP))
            if t_s is None:
                return None
            # Some drivers stamp everything with 0: the first batch shows whether stamps are to be trusted.
            self._trusted = self._trusted or bool(plausible(t_s, now_s, self._runs.held_s).any())
            if self._trusted:
                return t_s
            log.warning("%s: its stamps are no times; samples are timed as they come", self._device.said)
            self._stamps = None
        return self._arrivals.times(len(rows), now_s)
