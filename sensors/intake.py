"""Foreign samples on their way into blocks: in their unit, and at the time at which they were taken.

Shapes: n samples of C channels that arrived together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sensors.clock import ForeignClock, spread
from sensors.dropped import Dropped
from sensors.signals import SECONDS, Signal, TimeField
from sensors.source import Block, Floats, Gap, Item, Seconds

# Samples of one signal that may arrive together.
MOST_SAMPLES = 4096
# Beyond this a foreign time is noise (30,000 years), and so is a value that is no float32.
LATEST_S = 1e12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """Numbers as they came: values (n, C), and times (n,) in the time field's unit where there are any."""

    values: Seconds
    times: Seconds | None = None


class Intake:
    """What makes blocks of the samples of some signals. Each has a clock of its own; made anew when a source opens.

    `dropped` counts samples that are no numbers, or whose times are no clock's.
    """

    def __init__(self, signals: Sequence[Signal], time: TimeField | None, dropped: Dropped) -> None:
        self._time = time
        self._dropped = dropped
        self._clocks = {each.name: ForeignClock(None if time is None else time.wraps_s) for each in signals}
        self._newest_s = dict.fromkeys(self._clocks, float("-inf"))

    def take(self, signal: Signal, samples: Samples, arrival_s: float) -> list[Item]:
        """The blocks of samples that arrived at `arrival_s`, with a gap before those of a clock that was set."""
        values = scaled(samples.values, signal.scale)
        sound = np.isfinite(values).all(axis=1)
        foreign_s = None
        if samples.times is not None and self._time is not None:
            foreign_s = samples.times * SECONDS[self._time.unit]
            sound &= np.abs(foreign_s) < LATEST_S
        if not sound.all():
            self._dropped.note("a value or time that is no finite number", count=int(np.count_nonzero(~sound)))
            values = values[sound]
            foreign_s = None if foreign_s is None else foreign_s[sound]
        if len(values) == 0:
            return []
        if foreign_s is None:
            t_s = spread(len(values), signal.rate_hz, arrival_s, self._newest_s[signal.name])
            self._newest_s[signal.name] = arrival_s
            return [Block(modality=signal.name, t_s=t_s, values=values).earlier(signal.latency_s)]
        items: list[Item] = []
        begin = 0
        for piece in self._clocks[signal.name].placed(foreign_s, arrival_s):
            if piece.anew:
                items.append(Gap(modalities=(signal.name,)))
            end = begin + len(piece.t_s)
            block = Block(modality=signal.name, t_s=piece.t_s, values=values[begin:end])
            items.append(block.earlier(signal.latency_s))
            begin = end
        if begin < len(values):
            self._dropped.note("times that jump to and fro", count=len(values) - begin)
        return items


def one_time(time: float, count: int, signal: Signal, field: TimeField) -> Seconds:
    """Times (count,), in the field's unit, of samples that have one between them, at the nominal rate."""
    steps = np.arange(count, dtype=np.float64)
    if field.of == "last":
        steps -= count - 1
    times: Seconds = time + steps / signal.rate_hz / SECONDS[field.unit]
    return times


def scaled(values: Seconds, scale: Sequence[float]) -> Floats:
    """Values (n, C) in the signal's unit; what is too large for float32 is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        told: Floats = (values * np.asarray(scale)).astype(np.float32)
    return told
