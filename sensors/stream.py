"""What was recorded, in memory: streams of samples and labels, in segments, in recordings."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mekt.modality import Modality
from sensors.source import Block, Floats, Seconds

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stream:
    """One modality's samples: times (n,) in seconds, values (n, *shape)."""

    modality: Modality
    t_s: Seconds
    values: Floats


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labels:
    """What was done at instants (n,): the recording's own integers (n,)."""

    t_s: Seconds
    values: NDArray[np.int64]


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
        begin_s, end_s = min(float(t_s[0]) for t_s in times), max(float(t_s[-1]) for t_s in times)
        spans = [np.floor((t_s - begin_s) / block_s) for t_s in times]
        # Only spans that hold a sample are visited: a clock that leaps ahead costs nothing.
        for span in np.unique(np.concatenate(spans)) if end_s > begin_s else [0.0]:
            for stream, span_of in zip(streams, spans, strict=True):
                first, last = np.searchsorted(span_of, [span, span + 1])
                if last > first:
                    cut = slice(first, last)
                    yield Block(modality=stream.modality.name, t_s=stream.t_s[cut], values=stream.values[cut])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recording:
    """Segments that all have the same modalities. What `label_names` does not name is unlabelled."""

    name: str
    segments: tuple[Segment, ...]
    label_names: dict[int, str]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What was recorded, in the file's order."""
        return tuple(stream.modality for stream in self.segments[0].streams.values())


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
        ValueError: when they hold no numbers or their shapes are not the modality's.
    """
    if t_s.dtype.kind not in "iuf" or values.dtype.kind not in "iuf":
        raise ValueError(f"{modality.name} holds {t_s.dtype} and {values.dtype} instead of numbers")
    if t_s.ndim != 1 or values.shape != (len(t_s), *modality.shape):
        raise ValueError(
            f"{modality.name} has times {t_s.shape} and values {values.shape}, expected (n,) and"
            f" (n, {', '.join(map(str, modality.shape))})"
        )
    return Stream(modality=modality, t_s=t_s.astype(np.float64), values=values.astype(np.float32))


def as_labels(t_s: Array, values: Array) -> Labels:
    """Arrays of a file as labels.

    Raises:
        ValueError: when they are not whole numbers, one for each time.
    """
    if values.dtype.kind not in "iu" or t_s.dtype.kind not in "iuf" or t_s.ndim != 1 or values.shape != t_s.shape:
        raise ValueError(f"labels are {values.dtype} {values.shape} at times {t_s.shape}, expected whole numbers (n,)")
    return Labels(t_s=t_s.astype(np.float64), values=values.astype(np.int64))


def stretches(values: Array) -> Iterator[tuple[int, int]]:
    """First and end row of each run of equal values."""
    borders = [0, *(np.flatnonzero(np.diff(values.astype(np.int64))) + 1).tolist(), len(values)]
    return itertools.pairwise(borders)
