"""Sensors looked at one after the other while they lie still, for who installs a device: `mekt sensors check`.

Of each: whether it opens and gives samples; rate, jitter and range against what its settings say; whether an
accelerometer shows gravity; the chip's own self test, where it has one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from mekt import catalogue
from mekt.check import Check, failed, ok, refused, report, skipped, warning
from mekt.errors import MektError, SensorError
from mekt.modality import Modality
from mekt.process import Stop
from sensors.csv import CsvSettings
from sensors.iio.source import IioSettings
from sensors.imu_source import ImuSource
from sensors.look import tables_of
from sensors.meter import Figures, Meter
from sensors.replay import ReplaySettings
from sensors.rest import Rest, rest
from sensors.settings import SensorSettings
from sensors.simulator import SimulatorSettings
from sensors.source import Block, Floats, Gap, Ranged, Source
from sensors.track import HOLE_PERIODS, HOLE_S

READ_S = 0.5
# Chips' clocks are off by some percent; a rate further off than this share is another one.
RATE_SLACK = 0.1
# Of the samples that should have come; of a period; of a range, as drivers round their scales.
MOST_MISSING, MOST_JITTER, RANGE_SLACK = 0.01, 0.5, 0.01
# To say something of gravity; and so many are kept at most.
LEAST_SAMPLES, MOST_SAMPLES = 20, 100_000
# What is played is not here, and cannot lie still.
PLAYED = (ReplaySettings, CsvSettings, SimulatorSettings)


def run_check(
    config: Path, *, modalities: Sequence[str], seconds: float, as_json: bool, out: TextIO, stop: Stop
) -> int:
    """Look at every sensor of a settings file for so many seconds, print a line for each check; the exit code.

    Raises:
        SettingsError: when the file is none, or no sensor gives one of `modalities`.
    """
    tables = tables_of(config, modalities)
    return report("sensors", _all(tables, config.parent, seconds, stop), as_json=as_json, out=out)


def _all(tables: Sequence[tuple[int, SensorSettings]], base: Path, seconds: float, stop: Stop) -> Iterator[Check]:
    for index, settings in tables:
        name = f"sensors[{index}]"
        try:
            source = settings.source(base)
        except MektError as error:
            yield refused(name, str(error), type(error), entry=error.entry)
        else:
            yield from examine(name, settings, source, seconds, stop)


def examine(
    name: str,
    settings: SensorSettings,
    source: Source,
    seconds: float,
    stop: Stop,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Check]:
    """What is to be said of the sensor that `settings` describe; it is closed when all of it is said."""
    label = f"{settings.kind} ({', '.join(settings.modalities)})"
    try:
        looks, read_s, ranges = _look(source, seconds, stop, clock)
    except SensorError as error:
        yield refused(name, f"{label}: {error}", SensorError, entry=error.entry)
        return
    if stop.requested:
        yield skipped(name, f"{label}: stopped before it was looked at long enough")
        return
    yield ok(name, f"{label}: opened, and read for {read_s:.1f} s")
    wanted = settings.ranges if isinstance(settings, IioSettings) else {}
    resting: list[Rest] = []
    for look in looks:
        of = look.modality.name
        yield _rate(f"{of} rate", look, read_s)
        if look.figures.samples == 0:
            continue
        yield _range(f"{of} range", look, ranges.get(of), wanted.get(of))
        if look.modality.shape == (3,) and look.modality.unit == "g":
            if isinstance(settings, PLAYED):
                yield skipped(f"{of} at rest", f"a sensor of kind {settings.kind} is played, and does not lie here")
            elif len(look.kept) < LEAST_SAMPLES:
                yield skipped(f"{of} at rest", f"{len(look.kept)} samples are too few; more come with --seconds")
            else:
                resting.append(rest(look.kept))
                yield _gravity(f"{of} at rest", resting[-1])
    if isinstance(source, ImuSource):
        if all(each.still for each in resting):
            yield _self_test(f"{name} test", source)
        else:
            yield skipped(f"{name} test", "a chip that moves cannot test itself")


class _Look:
    """What has come of one modality, block by block."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        # The smallest and the largest value; how often the stream began anew; samples that hold what is no number.
        self.low, self.high = np.inf, -np.inf
        self.gaps = self.unsound = 0
        self._meter = Meter(modality)
        self._kept: list[Floats] = []
        self._room = 0 if modality.is_frames else MOST_SAMPLES

    def take(self, block: Block, now_s: float) -> None:
        sound = np.isfinite(block.t_s) & np.isfinite(block.values).reshape(len(block.t_s), -1).all(axis=1)
        values = block.values[sound]
        self.unsound += len(block.t_s) - len(values)
        if len(values) == 0:
            return
        self._meter.take(Block(modality=block.modality, t_s=block.t_s[sound], values=values), now_s)
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self._kept.append(values[: self._room])
        self._room -= len(self._kept[-1])

    def gap(self) -> None:
        # What is before the first sample is no loss.
        self.gaps += self.low <= self.high
        self._meter.gap()

    @property
    def figures(self) -> Figures:
        return self._meter.figures()

    @property
    def stuck(self) -> bool:
        """Whether nothing moved, not even by the noise that every sensor has."""
        kept = self.kept
        return self.low == self.high or (len(kept) >= LEAST_SAMPLES and not np.ptp(kept, axis=0).any())

    @property
    def kept(self) -> Floats:
        """Its sound samples (n, *shape), of signals alone."""
        return np.concatenate(self._kept) if self._kept else np.empty((0, *self.modality.shape), np.float32)


def _look(
    source: Source, seconds: float, stop: Stop, clock: Callable[[], float]
) -> tuple[list[_Look], float, dict[str, float]]:
    """What came of each modality, in how many seconds, and how far each reaches where the device says so."""
    looks = {each.name: _Look(each) for each in source.modalities}
    source.open()
    try:
        began_s = clock()
        while not stop.requested and (left_s := began_s + seconds - clock()) > 0:
            items = source.read(min(READ_S, left_s))
            if items is None:
                break
            for item in items:
                if isinstance(item, Block):
                    looks[item.modality].take(item, clock())
                elif isinstance(item, Gap):
                    for each in looks.values():
                        each.gap()
        read_s = clock() - began_s
        ranges = dict(source.ranges()) if isinstance(source, Ranged) else {}
    finally:
        source.close()
    return list(looks.values()), read_s, ranges


def _rate(name: str, look: _Look, read_s: float) -> Check:
    """Whether samples come as often and as evenly as windows need them."""
    each, nominal_hz = look.figures, look.modality.rate_hz
    if each.rate_hz == 0:
        seen = f"{each.samples} samples in {read_s:.1f} s"
        remedy = "look whether it is switched on and measures; a slow one may need more --seconds"
        return failed(name, seen, remedy, SensorError, catalogue.SENSOR_SILENT)
    seen = (
        f"{each.rate_hz:.2f} Hz of {nominal_hz:g}, jitter {each.jitter_ms:.1f} ms, longest gap {each.gap_ms:.0f} ms,"
        f" {each.missing} missing of {each.samples + each.missing}"
    )
    hole_s = max(HOLE_PERIODS / nominal_hz, HOLE_S)
    if each.rate_hz * hole_s < 1:
        remedy = "there is a hole behind each sample, and so no window: set it to a rate that it has, and the plan's"
        return failed(name, seen, remedy, SensorError, catalogue.SENSOR_UNUSABLE)
    if abs(each.rate_hz / nominal_hz - 1) > RATE_SLACK:
        return warning(name, seen, "it measures at another rate: set one that it has, for others are made up from it")
    if look.gaps or each.backward or look.unsound:
        seen += f"; began anew {look.gaps} times, {each.backward} not later than one before, {look.unsound} no numbers"
        return warning(name, seen, "check cable, power and driver; a slow bus may need a lower rate")
    # Uneven samples look like missing ones, but come as many as they should; a slow clock gives fewer, and none is
    # missing.
    missing = min(each.missing / (each.samples + each.missing), 1 - each.rate_hz / nominal_hz)
    lost = missing > MOST_MISSING or each.gap_ms > 1000 * hole_s
    if lost or each.jitter_ms * nominal_hz > 1000 * MOST_JITTER:
        return warning(name, seen, "take load off this machine or the bus, or lower the rate")
    return ok(name, seen)


def _range(name: str, look: _Look, reaches: float | None, wanted: float | None) -> Check:
    """Whether the sensor reaches as far as its settings want, moves at all, and does not stand at an end of it."""
    unit = look.modality.unit
    seen = f"{look.low:.3g} to {look.high:.3g} {unit}"
    if reaches is not None:
        seen += f"; reaches +-{reaches:.4g} {unit}"
        if wanted is not None and reaches < (1 - RANGE_SLACK) * wanted:
            remedy = f"{wanted:g} was wanted, its driver has no more or refused it: lower `ranges`, or ask the log why"
            return failed(name, seen, remedy, SensorError, catalogue.SENSOR_UNUSABLE)
        if max(-look.low, look.high) >= (1 - RANGE_SLACK) * reaches:
            return warning(name, seen, "it stood at an end of its range: ask for a larger one, or let it lie still")
    elif wanted is not None:
        return warning(name, f"{seen}; its driver does not say how far it reaches", "shake it and look at the range")
    if look.stuck:
        return warning(name, f"{seen}; every sample is the same", "it may be stuck: see whether it notices anything")
    return ok(name, seen)


def _gravity(name: str, there: Rest) -> Check:
    if there.ok:
        return ok(name, f"{there.seen}, if that is what points up")
    if there.still:
        return failed(name, there.seen, there.remedy, SensorError, catalogue.SENSOR_UNUSABLE)
    return warning(name, there.seen, there.remedy)


def _self_test(name: str, source: ImuSource) -> Check:
    try:
        result = source.self_test()
    except SensorError as error:
        return refused(name, str(error), SensorError, entry=error.entry)
    if result.passed:
        return ok(name, f"{result.chip}: all {len(result.axes)} axes passed")
    seen = f"{result.chip}: {', '.join(str(each) for each in result.axes if not each.passed)}"
    remedy = "lay it still and try again; where it fails again the chip is damaged, or a copy without a self test"
    return failed(name, seen, remedy, SensorError, catalogue.SENSOR_UNUSABLE)
