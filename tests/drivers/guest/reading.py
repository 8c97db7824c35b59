"""Sources as a device's settings make them, and what is read from them; the rig's figures."""

import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from mekt.errors import SensorError
from sensors.settings import sensor_settings
from sensors.source import Block, Gap, Item, Source
from tests.drivers.guest.waiting import PATIENCE_S, seconds


class Record(Protocol):
    """pytest's record_property: a figure that the rig shows."""

    def __call__(self, name: str, value: object) -> None: ...


@dataclass
class Read:
    """What came: of each modality its times (n,) and values (n, ...), in order."""

    t_s: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    values: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    gaps: int = 0
    calls: int = 0
    longest_call_s: float = 0.0

    def take(self, block: Block) -> None:
        """One block more."""
        name = block.modality
        self.t_s[name] = np.concatenate([self.t_s.get(name, np.empty(0)), block.t_s])
        before = self.values.get(name)
        self.values[name] = block.values if before is None else np.concatenate([before, block.values])

    def rate_hz(self, name: str) -> float:
        """Samples per second by their own times."""
        t_s = self.t_s[name]
        return (len(t_s) - 1) / float(t_s[-1] - t_s[0])

    def figures(self, name: str) -> str:
        """Rate and distances of samples, for the rig."""
        steps = np.diff(self.t_s[name]) * 1000
        if len(steps) == 0:
            return "one alone"
        low, middle, high = np.percentile(steps, [0, 50, 100])
        return (
            f"{len(self.t_s[name])} at {self.rate_hz(name):.2f} Hz, {low:.1f}/{middle:.1f}/{high:.1f} ms apart,"
            f" {self.calls} reads, {self.gaps} gaps"
        )


class Tapped:
    """A source that passes everything on and keeps what it gave and what it failed with, for the rig to tell."""

    def __init__(self, source: Source) -> None:
        self.modalities = source.modalities
        self.read_all = Read()
        self.errors: list[str] = []
        self._source = source

    def open(self) -> None:
        """As the source does."""
        self._source.open()

    def close(self) -> None:
        """As the source does."""
        self._source.close()

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """As the source does."""
        try:
            items = self._source.read(timeout_s)
        except SensorError as error:
            self.errors.append(str(error))
            raise
        self.read_all.calls += 1
        for item in items or ():
            if isinstance(item, Gap):
                self.read_all.gaps += 1
            else:
                self.read_all.take(item)
        return items

    @property
    def told(self) -> str:
        """What came of it, in words."""
        figures = (f"{name}: {self.read_all.figures(name)}" for name in list(self.read_all.t_s))
        return "; ".join([*figures, *self.errors]) or f"nothing in {self.read_all.calls} reads"


def source_of(toml: str) -> Source:
    """The source that the one table of a settings file names."""
    [table] = tomllib.loads(toml)["sensors"]
    return sensor_settings(table).source(Path("/"))


@contextmanager
def opened(toml: str) -> Iterator[Source]:
    """The source that a table names, open."""
    source = source_of(toml)
    source.open()
    try:
        yield source
    finally:
        source.close()


def gathered(source: Source, count: int, timeout_s: float = 0.5) -> Read:
    """Read until there are `count` samples of each of its modalities."""
    read = Read()
    deadline_s = seconds() + PATIENCE_S
    while any(len(read.t_s.get(each.name, ())) < count for each in source.modalities):
        assert seconds() < deadline_s, f"too little came: { ({name: len(t_s) for name, t_s in read.t_s.items()}) }"
        before_s = seconds()
        items = source.read(timeout_s)
        read.longest_call_s = max(read.longest_call_s, seconds() - before_s)
        assert items is not None
        read.calls += 1
        for item in items:
            if isinstance(item, Gap):
                read.gaps += 1
            else:
                read.take(item)
    for name, t_s in read.t_s.items():
        assert np.all(np.diff(t_s) > 0), f"the times of {name} do not rise"
        # On CLOCK_MONOTONIC, and of samples that were taken just now.
        assert seconds() - PATIENCE_S < t_s[0] and t_s[-1] <= seconds()
    return read


def failure(source: Source, timeout_s: float = 0.5) -> tuple[SensorError, float]:
    """Read until the source says that it has failed: what it says, and after how many seconds."""
    began_s = seconds()
    while seconds() < began_s + PATIENCE_S:
        try:
            source.read(timeout_s)
        except SensorError as error:
            return error, seconds() - began_s
    pytest.fail("the source never said that its sensor has failed")


def reopened(source: Source) -> float:
    """Open it again and again, as a device does, until it is there; the seconds that this took."""
    began_s = seconds()
    while True:
        source.close()
        try:
            source.open()
        except SensorError:
            if seconds() > began_s + PATIENCE_S:
                raise
        else:
            return seconds() - began_s


def near(values: NDArray[Any], expected: Any, tolerance: float) -> bool:
    """Whether all rows are as expected."""
    return bool(np.all(np.abs(values - np.asarray(expected)) <= tolerance))
