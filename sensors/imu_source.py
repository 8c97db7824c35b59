"""A chip that measures acceleration and rotation as a source.

The chip fills its FIFO, which is fetched in bursts; when samples were taken is worked out (`sensors.chipclock`). A chip
whose FIFO gives nothing, as those of some copies, is asked for each sample instead.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import numpy as np

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.chip import Batch, Chip, SelfTest, Wait
from sensors.chipclock import ChipClock
from sensors.i2c import I2cDevice
from sensors.source import Block, Floats, Gap, Item, Seconds

log = logging.getLogger(__name__)

Sensor = Literal["acc", "gyro"]
# Samples are fetched when so many seconds of them wait, or when the FIFO is half full.
BLOCK_S = 0.2
# A FIFO that has given nothing for so long, and so many periods, is given up; a chip that is silent for longer fails.
FIFO_S, SILENT_S, SILENT_PERIODS = 0.5, 2.0, 10
# So often in a row nothing but losses may be fetched: then the bus is too slow, or somebody else reads the chip.
MOST_LOSSES = 10
# Without FIFO a sample is looked for so often in a period. After more lost ones the stream starts anew.
LOOKS, MOST_MISSED = 2, 25
# Instants of reading are spread over the chip's period by multiples of this share of it, as evenly as any number does.
# Read always at the same phase, a FIFO's count would never tell that phase.
GOLDEN = (math.sqrt(5) - 1) / 2


class ImuSource:
    """Reads a chip. Block times are those at which samples were taken, on CLOCK_MONOTONIC."""

    def __init__(
        self,
        device: I2cDevice,
        chip: Chip,
        modalities: Mapping[Sensor, Modality],
        *,
        mounting: Floats | None = None,
        ranges: Mapping[Sensor, float] | None = None,
        fifo: bool = True,
        latency_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = time.sleep,
    ) -> None:
        """Nothing is read before `open`.

        Args:
            device: the chip's place on a bus.
            chip: what speaks to it.
            modalities: what each of its sensors is called, in the order in which blocks are given.
            mounting: a rotation (3, 3) that turns the chip's axes into the body's.
            ranges: how far each of its sensors reaches, in the modality's unit.
            fifo: whether the chip's FIFO is used.
            latency_s: how much later a time is than what it is of.
            clock: the seconds in which times are told.
            wait: lets that many seconds of `clock` pass.
        """
        self.modalities = tuple(modalities.values())
        self._gap = Gap(modalities=tuple(each.name for each in self.modalities))
        self._device, self._chip, self._named, self._mounting = device, chip, dict(modalities), mounting
        self._ranges = dict(ranges or {})
        self._wants_fifo, self._latency_s, self._clock, self._wait = fifo, latency_s, clock, wait
        self._watermark = max(1, min(round(BLOCK_S * chip.rate_hz), chip.capacity // 2))
        self._silent_s = max(SILENT_S, SILENT_PERIODS / chip.rate_hz)
        self._opened = False
        self._begin(fifo=fifo)

    def open(self) -> None:
        """Find the chip, set it up and let it measure; takes some tenths of a second.

        Raises:
            SensorError: when it is not there, or another chip is.
        """
        self.close()
        self._device.open()
        self._opened = True
        try:
            self._chip.identify()
            self._chip.start(fifo=self._wants_fifo)
        except SensorError:
            self.close()
            raise
        self._begin(fifo=self._wants_fifo)

    def read(self, timeout_s: float) -> Sequence[Item]:
        """Samples since the last call, once there are enough to fetch; empty when that is not within `timeout_s`.

        Raises:
            SensorError: when the chip no longer answers, or no longer measures.
        """
        if not self._opened:
            raise SensorError("the chip was not opened; open a source before it is read", catalogue.SOURCE_MISUSED)
        return self._fetch(timeout_s) if self._fifo else self._poll(timeout_s)

    def close(self) -> None:
        """Put the chip to sleep, if it still answers, and let the bus go."""
        if self._opened:
            with suppress(SensorError):
                self._chip.stop()
        self._opened = False
        self._device.close()

    def ranges(self) -> Mapping[str, float]:
        """How far each modality reaches, in its unit."""
        return {self._named[sensor].name: reach for sensor, reach in self._ranges.items()}

    def self_test(self) -> SelfTest:
        """The chip's self test, for whoever installs it: it takes some seconds, in which it has to lie still.

        Raises:
            SensorError: when the chip is not there, or gives no samples.
        """
        self.close()
        self._device.open()
        self._opened = True
        try:
            self._chip.identify()
            return self._chip.self_test()
        finally:
            self.close()

    def _begin(self, *, fifo: bool) -> None:
        self._fifo, self._gave = fifo, False
        self._chip_clock = ChipClock(self._chip.rate_hz)
        self._heard_s = self._clock()
        self._due_s = self._heard_s + self._watermark * self._chip_clock.period_s
        self._phase = 0.0
        self._losses, self._told_loss = 0, False
        # Without FIFO: when the last look began.
        self._looked_s = -math.inf

    def _fetch(self, timeout_s: float) -> list[Item]:
        left_s = self._due_s - self._clock()
        if left_s > 0:
            self._wait(max(0.0, min(left_s, timeout_s)))
            if left_s > timeout_s:
                return []
        asked_s = self._clock()
        fill = self._chip.fill()
        answered_s = self._clock()
        items: list[Item] = []
        if fill.samples or fill.overrun:
            batch = self._chip.take(fill)
            self._heard_s, self._gave = answered_s, True
            self._notice_losses(batch)
            items = self._items(batch, asked_s - self._chip_clock.period_s, answered_s)
        else:
            self._notice_silence(answered_s)
        due_s = self._chip_clock.due_s(self._watermark) if items else None
        if due_s is None:
            due_s = self._clock() + self._watermark * self._chip_clock.period_s
        self._due_s = due_s + self._next_phase() * self._chip_clock.period_s
        return items

    def _next_phase(self) -> float:
        self._phase = (self._phase + GOLDEN) % 1
        return self._phase

    def _items(self, batch: Batch, after_s: float, until_s: float) -> list[Item]:
        items: list[Item] = []
        if batch.lost or (len(batch) and not self._chip_clock.fits(len(batch), after_s, until_s)):
            items.append(self._gap)
            self._chip_clock.restart()
            if not self._told_loss:
                self._told_loss = True
                log.warning(
                    "%s: samples were lost; it is read too late, or the bus is too slow for its rate",
                    self._device.where,
                )
        if len(batch):
            items += self._blocks(self._chip_clock.times(len(batch), after_s, until_s), batch.acc, batch.gyro)
        return items

    def _poll(self, timeout_s: float) -> list[Item]:
        ends_s = self._clock() + timeout_s
        items: list[Item] = []
        times_s: list[float] = []
        batches: list[Batch] = []
        while len(times_s) < self._watermark:
            asked_s = self._clock()
            batch = self._chip.look()
            until_s = self._clock()
            if batch is not None:
                # The chip holds the newest sample, which is at most a period old.
                after_s, self._heard_s = max(self._looked_s, asked_s - self._chip_clock.period_s), until_s
                passed = self._chip_clock.passed(after_s, until_s)
                if passed > MOST_MISSED:
                    items += [*self._joined(times_s, batches), self._gap]
                    times_s, batches, passed = [], [], 1
                    self._chip_clock.restart()
                batches.append(batch)
                times_s.append(float(self._chip_clock.times(passed, after_s, until_s)[-1]))
            else:
                self._notice_silence(until_s)
            self._looked_s = asked_s
            step_s = (0.5 + self._next_phase()) * self._chip_clock.period_s / LOOKS
            if until_s + step_s > ends_s:
                self._wait(max(0.0, ends_s - until_s))
                break
            self._wait(step_s)
        return items + self._joined(times_s, batches)

    def _joined(self, times_s: Sequence[float], batches: Sequence[Batch]) -> list[Item]:
        if not batches:
            return []
        acc, gyro = ([value for value in values if value is not None] for values in _columns(batches))
        together = [np.concatenate(values) if values else None for values in (acc, gyro)]
        return self._blocks(np.array(times_s), *together)

    def _blocks(self, t_s: Seconds, acc: Floats | None, gyro: Floats | None) -> list[Item]:
        blocks: list[Item] = []
        for sensor, modality in self._named.items():
            values = acc if sensor == "acc" else gyro
            assert values is not None
            if self._mounting is not None:
                values = (values @ self._mounting.T).astype(np.float32)
            blocks.append(Block(modality=modality.name, t_s=t_s, values=values).earlier(self._latency_s))
        return blocks

    def _notice_losses(self, batch: Batch) -> None:
        self._losses = 0 if len(batch) else self._losses + 1
        if self._losses == MOST_LOSSES:
            raise SensorError(
                f"{self._device.where}: {self._losses} times in a row the FIFO held nothing whole, at"
                f" {self._chip.rate_hz:g} Hz; lower rate_hz, or let the bus run at 400 kHz",
                catalogue.SENSOR_UNUSABLE,
            )

    def _notice_silence(self, now_s: float) -> None:
        silent_s = now_s - self._heard_s
        never = self._fifo and not self._gave
        if never and silent_s > max(FIFO_S, SILENT_PERIODS / 2 / self._chip.rate_hz) and self._chip.look() is not None:
            log.warning("%s: its FIFO gives nothing; asking for each sample instead", self._device.where)
            self._chip.start(fifo=False)
            self._begin(fifo=False)
        elif silent_s > self._silent_s:
            self._chip.identify()
            raise SensorError(
                f"{self._device.where}: the {self._chip.name} answers, but has measured nothing for {silent_s:.1f} s;"
                " check its power, or switch it off and on",
                catalogue.SENSOR_UNUSABLE,
            )


def _columns(batches: Sequence[Batch]) -> tuple[list[Floats | None], list[Floats | None]]:
    return [each.acc for each in batches], [each.gyro for each in batches]
