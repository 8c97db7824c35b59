"""Recordings in text files, a row for each instant, played as a sensor: in real time, faster, or as fast as it is read.

    [[sensors]]
    kind = "csv"
    files = ["walk.csv"]                         # time,ax,ay,az
    time = { field = "time", unit = "us" }
    signals = [{ name = "acc", fields = ["ax", "ay", "az"], rate_hz = 100, scale = [0.10197] }]
    speed = 4.0

Columns are named as the file's first row has them, or by their number from 1. A row in which all columns of a signal
are empty has no sample of it, so that signals of several rates fit into one file; one in which something else than a
number stands is counted and left out.
"""

import csv
import itertools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mekt import catalogue
from mekt.errors import SensorError, SettingsError
from mekt.schema import Bounds
from sensors.clock import unwrapped
from sensors.columns import number
from sensors.dropped import Dropped
from sensors.faults import FaultSettings
from sensors.intake import Samples, scaled
from sensors.recording import not_there
from sensors.replay import Speed, in_real_time, playing
from sensors.signals import SECONDS, Signal, Signals, TimeField, signals_named_once
from sensors.source import Source
from sensors.stream import Recording, Segment, Stream

# All of a file is held in memory, as a third of its text; a week of six channels at 50 Hz is this much.
LARGEST_FILE_BYTES = 2 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvSettings:
    """Files of columns, one after the other; relative paths start at the settings file.

    Without `time` the rows follow each other at each signal's nominal rate. `speed` is how many times faster than real
    time; 1e6 is as fast as anything reads. `live` and `faults` are as for other recordings.
    """

    kind: Literal["csv"] = "csv"
    files: Annotated[tuple[str, ...], Bounds(shortest=1, longest=10_000)]
    separator: Annotated[str, Bounds(pattern=r"[^\"\r\n]")] = ","
    header: bool = True
    signals: Signals
    time: TimeField | None = None
    speed: Speed = 1.0
    live: bool = False
    faults: FaultSettings | None = None

    def __post_init__(self) -> None:
        signals_named_once(self.signals)
        in_real_time(self.speed, live=self.live)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of what the files hold."""
        return tuple(each.name for each in self.signals)

    def source(self, base: Path) -> Source:
        """The files as a source.

        Raises:
            SettingsError: when one is not there.
            SensorError: when one cannot be read, lacks a column or has no row of a signal.
        """
        paths = [base / file for file in self.files]
        for path in paths:
            if not path.is_file():
                raise SettingsError(f"sensors.files: {not_there(path)}", catalogue.RECORDING_NOT_FOUND)
        recordings = [read_columns(path, self) for path in paths]
        return playing(recordings, self.modalities, speed=self.speed, live=self.live, faults=self.faults)


def read_columns(path: Path, settings: CsvSettings) -> Recording:
    """The recording in a file of columns, one segment, without labels.

    Raises:
        SensorError: when it cannot be read, lacks a column or has no row of a signal.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise SensorError(
                f"{path}: {size} bytes, at most {LARGEST_FILE_BYTES}; split the file", catalogue.RECORDING_UNREADABLE
            )
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return _recording(path, csv.reader(file, delimiter=settings.separator), settings)
    except csv.Error as error:
        raise SensorError(f"{path}: no rows of columns ({error})", catalogue.RECORDING_DAMAGED) from error
    except OSError as error:
        raise SensorError(
            f"{path}: cannot be read ({error.strerror}); mend its permissions", catalogue.RECORDING_UNREADABLE
        ) from error


def _recording(path: Path, rows: Iterator[list[str]], settings: CsvSettings) -> Recording:
    dropped = Dropped(str(path))
    first = next(rows, [])
    places = _places(path, first, settings)
    rows = rows if settings.header else itertools.chain([first], rows)
    time = settings.time
    values = {each.name: array("d") for each in settings.signals}
    times = {each.name: array("d") for each in settings.signals}
    for row in rows:
        told = None if time is None else number(_cell(row, places[time.field]))
        for signal in settings.signals:
            texts = [_cell(row, places[field]) for field in signal.fields]
            if not any(texts):
                continue
            numbers = [number(text) for text in texts]
            if None in numbers or (time is not None and told is None):
                what = "a column" if None in numbers else "a time"
                dropped.note(f"{signal.name}: {what} that is no number", settings.separator.join(row)[:200])
                continue
            values[signal.name].extend(each for each in numbers if each is not None)
            if told is not None:
                times[signal.name].append(told)
    streams = {
        each.name: _stream(path, each, time, _samples(each, values[each.name], times[each.name]), dropped)
        for each in settings.signals
    }
    return Recording(name=path.stem, segments=(Segment(name="file", streams=streams),), label_names={})


def _places(path: Path, first: Sequence[str], settings: CsvSettings) -> dict[str, int]:
    """Where each field's column is, from 0, by the first row."""
    names: dict[str, int] = {}
    for place, name in enumerate(first if settings.header else ()):
        names.setdefault(name.strip(), place)
    fields = [field for signal in settings.signals for field in signal.fields]
    if settings.time is not None:
        fields.append(settings.time.field)
    places = {field: names.get(field, _place(field)) for field in fields}
    if missing := [field for field, place in places.items() if not 0 <= place < len(first)]:
        has = ", ".join(itertools.islice(names, 16)) if settings.header else f"{len(first)} columns without names"
        raise SensorError(
            f"{path}: has no column {', '.join(missing)}; it has {has[:400] or 'none'}: name these, or a number from 1",
            catalogue.MODALITY_MISSING,
        )
    return places


def _place(field: str) -> int:
    return int(field) - 1 if field.isascii() and field.isdigit() and len(field) <= 4 else -1


def _cell(row: Sequence[str], place: int) -> str:
    return row[place].strip() if place < len(row) else ""


def _samples(signal: Signal, values: "array[float]", times: "array[float]") -> Samples:
    rows = np.array(values, dtype=np.float64).reshape(-1, len(signal.fields))
    return Samples(values=rows, times=np.array(times, dtype=np.float64) if times else None)


def _stream(path: Path, signal: Signal, time: TimeField | None, samples: Samples, dropped: Dropped) -> Stream:
    values = scaled(samples.values, signal.scale)
    if time is None or samples.times is None:
        t_s = np.arange(len(values)) / signal.rate_hz
    else:
        # A clock that was set is played as it was recorded, as in any other recording.
        t_s = unwrapped(samples.times * SECONDS[time.unit], time.wraps_s)
    sound = np.isfinite(values).all(axis=1) & np.isfinite(t_s)
    if not sound.all():
        dropped.note("a value that is too large", count=int(np.count_nonzero(~sound)))
    if not sound.any():
        raise SensorError(
            f"{path}: no row has numbers for {signal.name} in {', '.join(signal.fields)}; name other columns",
            catalogue.MODALITY_MISSING,
        )
    return Stream(modality=signal.modality, t_s=t_s[sound] - signal.latency_s, values=values[sound])
