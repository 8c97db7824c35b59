"""What was recorded, in memory: streams of samples and labels, in segments, in recordings.

Shapes: n samples or labelled instants. Times are seconds on the recording's own clock; they may repeat or go backwards.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.grid import distinct
from sensors.source import Block, Floats, Seconds

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stream:
    """One modality's samples, one at least: times (n,) in seconds, values (n, *shape), all of them finite.

    Raises:
        ValueError: when they are not that.
    """

    modality: Modality
    t_s: Seconds
    values: Floats

    def __post_init__(self) -> None:
        name, shape = self.modality.name, self.modality.shape
        if self.t_s.ndim != 1 or self.values.shape != (len(self.t_s), *shape):
            raise ValueError(
                f"{name} has times {self.t_s.shape} and values {self.values.shape}, expected (n,) and"
                f" (n, {', '.join(map(str, shape))})"
            )
        if len(self.t_s) == 0:
            raise ValueError(f"{name} has no samples")
        if not np.isfinite(self.t_s).all() or not np.isfinite(self.values).all():
            raise ValueError(f"{name} holds values that are not finite (NaN or infinity)")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labels:
    """What was done at instants (n,): the recording's own integers (n,).

    Raises:
        ValueError: when there is not one integer for each instant, or an instant is not finite.
    """

    t_s: Seconds
    values: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.t_s.ndim != 1 or self.values.shape != self.t_s.shape:
            raise ValueError(f"labels are {self.values.shape} at times {self.t_s.shape}, expected (n,) and (n,)")
        if not np.isfinite(self.t_s).all():
            raise ValueError("labels have times that are not finite (NaN or infinity)")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """One uninterrupted stretch of a recording."""

    name: str
    streams: dict[str, Stream]
    labels: Labels | None = None

    def blocks(self, modalities: Sequence[str], block_s: float) -> Iterator[Block]:
        """The samples in spans of `block_s`, modality after modality within each, as a live source would give them."""
        streams = [self.streams[name] for name in modalities]
        # Samples keep their order and their own times; only where they are cut goes by a time that never falls.
        times = [np.maximum.accumulate(stream.t_s) for stream in streams]
        begin_s = min(float(t_s[0]) for t_s in times)
        spans = [np.floor((t_s - begin_s) / block_s) for t_s in times]
        # Only spans that hold a sample are visited: a clock that leaps ahead costs nothing.
        for span in distinct(np.concatenate(spans)):
            for stream, span_of in zip(streams, spans, strict=True):
                first, last = np.searchsorted(span_of, [span, span + 1])
                if last > first:
                    cut = slice(first, last)
                    yield Block(modality=stream.modality.name, t_s=stream.t_s[cut], values=stream.values[cut])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recording:
    """Segments, one at least, that all have the same modalities. What `label_names` does not name is unlabelled.

    Raises:
        ValueError: when there is no segment, or one with other modalities.
    """

    name: str
    segments: tuple[Segment, ...]
    label_names: dict[int, str]

    def __post_init__(self) -> None:
        if not self.segments:
            raise ValueError("holds no segment")
        first = {name: stream.modality for name, stream in self.segments[0].streams.items()}
        for segment in self.segments:
            if {name: stream.modality for name, stream in segment.streams.items()} != first:
                raise ValueError(f"segment {segment.name} has other modalities than segment {self.segments[0].name}")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What was recorded, in the file's order."""
        return tuple(stream.modality for stream in self.segments[0].streams.values())

    def modality(self, name: str) -> Modality:
        """The modality of that name.

        Raises:
            SensorError: when it was not recorded.
        """
        if name not in self.segments[0].streams:
            raise SensorError(
                f"{self.name}: has no modality {name}; it has {', '.join(self.segments[0].streams)}: name these",
                catalogue.MODALITY_MISSING,
            )
        return self.segments[0].streams[name].modality

    def only(self, names: Sequence[str]) -> "Recording":
        """The recording with these modalities alone, in this order.

        Raises:
            SensorError: when one of them was not recorded.
        """
        for name in names:
            self.modality(name)
        segments = tuple(
            Segment(name=each.name, streams={name: each.streams[name] for name in names}, labels=each.labels)
            for each in self.segments
        )
        return Recording(name=self.name, segments=segments, label_names=self.label_names)


def class_names(recordings: Sequence[Recording]) -> tuple[str, ...]:
    """Every label's name in the recordings once, in ascending order of the value that it was first seen with."""
    values: dict[str, int] = {}
    for recording in recordings:
        for value, name in sorted(recording.label_names.items()):
            values.setdefault(name, value)
    return tuple(sorted(values, key=lambda name: (values[name], name)))


def as_stream(modality: Modality, t_s: Array, values: Array) -> Stream:
    """Arrays of a file as a stream.

    Raises:
        ValueError: when they hold no numbers or are not what a stream must be.
    """
    if t_s.dtype.kind not in "iuf" or values.dtype.kind not in "iuf":
        raise ValueError(f"{modality.name} holds {t_s.dtype} and {values.dtype} instead of numbers")
    return Stream(modality=modality, t_s=t_s.astype(np.float64), values=values.astype(np.float32))


def as_labels(t_s: Array, values: Array) -> Labels:
    """Arrays of a file as labels.

    Raises:
        ValueError: when they are not whole numbers, one for each time.
    """
    if t_s.dtype.kind not in "iuf" or values.dtype.kind not in "iu":
        raise ValueError(f"labels are {values.dtype} at times {t_s.dtype}, expected whole numbers at numbers")
    return Labels(t_s=t_s.astype(np.float64), values=values.astype(np.int64))


def stretches(values: Array) -> Iterator[tuple[int, int]]:
    """First and end row of each run of equal values."""
    borders = [0, *(np.flatnonzero(np.diff(values.astype(np.int64))) + 1).tolist(), len(values)]
    return itertools.pairwise(borders)
