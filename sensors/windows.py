"""Windows out of streams: each modality resampled to its nominal rate, all of them on one grid.

Shapes: n samples, T samples of a window, N windows. Sample i of window k lies at origin + k * stride + i / rate, where
the origin is the first instant at which every modality has data. What a grid point becomes depends only on the samples
around it, so windows do not depend on how a stream is cut into blocks, nor on the order in which blocks of different
modalities arrive, as long as none lags more than `LAG_S` behind another.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality, WindowSpec
from sensors.quality import Quality
from sensors.source import Block, Floats, Seconds, Values
from sensors.stream import Labels, Recording
from sensors.track import LAG_S, SLACK_S, Track

# The label of a window that belongs to no class.
UNLABELLED = -1
# A recording is windowed in pieces of this length, which bounds what is held twice.
PIECE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Window:
    """One window: its start on the source's clock, per modality the values of T samples, and how well it was sensed.

    Frames are those of other windows too: whoever changes values takes a copy.
    """

    start_s: float
    values: Mapping[str, Values]
    quality: Mapping[str, Quality] = field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, Floats]:
        """Per modality an array (T, *shape)."""
        return {name: each if isinstance(each, np.ndarray) else np.stack(each) for name, each in self.values.items()}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """That of a modality's array; None when it is missing."""
        values = self.values.get(name)
        if values is None or isinstance(values, np.ndarray):
            return None if values is None else values.shape
        [shape] = {frame.shape for frame in values}
        return (len(values), *shape)


class Windower:
    """Takes blocks of several modalities and gives the windows that all of them cover. Pure; its memory is bounded.

    `ranges` are those of modalities whose sensors have one, in their unit: what is beyond is told as saturated.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        spec: WindowSpec,
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        lag_s, known = LAG_S + spec.window_s, ranges or {}
        self._stride_s = spec.stride_s
        self._tracks = {each.name: Track(each, spec.samples(each), lag_s, known.get(each.name)) for each in modalities}
        self._windows: Counter[str] = Counter()
        self._origin_s: float | None = None
        self._next = 0

    @property
    def counts(self) -> dict[str, int]:
        """What became of all so far: windows "made", and over a "hole", which are not; samples as "acc: kept".

        Every sample that was delivered is either kept, or not a number, or not later than one before it (`Track`).
        """
        samples = {
            f"{name}: {fate}": count for name, track in self._tracks.items() for fate, count in track.counts.items()
        }
        return {**self._windows, **samples}

    def gap(self) -> None:
        """The stream starts anew: samples that no window has used are forgotten, and the grid with them."""
        self._origin_s, self._next = None, 0
        for track in self._tracks.values():
            track.clear()

    def feed(self, block: Block) -> list[Window]:
        """The windows that `block` completes, in order of time; other modalities than the windower's are passed over.

        A clock that is set back acts as a gap.

        Raises:
            SensorError: when the samples do not have the modality's shape.
        """
        track = self._tracks.get(block.modality)
        if track is None:
            return []
        t_s, values = track.checked(block)
        given: list[Window] = []
        while len(t_s):
            used = track.append(t_s, values)
            given += self._completed()
            t_s, values = t_s[used:], values[used:]
            if len(t_s):
                self.gap()
        return given

    def _completed(self) -> list[Window]:
        tracks = list(self._tracks.values())
        if any(len(track.buffer) == 0 for track in tracks):
            return []
        if self._origin_s is None:
            self._origin_s = max(track.buffer.oldest_s for track in tracks)
        last = self._last_decided(tracks)
        if last < self._next:
            return []
        chosen = self._covered(tracks, last)
        self._windows["made"] += len(chosen)
        self._windows["hole"] += last + 1 - self._next - len(chosen)
        self._next = last + 1
        given: list[Window] = []
        if len(chosen):
            starts_s = _starts_s(self._origin_s, chosen, self._stride_s)
            made = {name: track.resample(starts_s) for name, track in self._tracks.items()}
            given = [
                Window(
                    start_s=start_s,
                    values={name: windows[row] for name, (windows, _) in made.items()},
                    quality={name: quality[row] for name, (_, quality) in made.items()},
                )
                for row, start_s in enumerate(starts_s.tolist())
            ]
        for track in tracks:
            track.buffer.forget_before(self._start_s(self._next))
        return given

    def _start_s(self, window: int) -> float:
        assert self._origin_s is not None
        return self._origin_s + window * self._stride_s

    def _last_decided(self, tracks: Sequence[Track]) -> int:
        """The last window behind whose last grid point every modality has a sample."""

        def decided(window: int) -> bool:
            return all(self._start_s(window) + track.reach_s <= track.buffer.newest_s for track in tracks)

        start_s = min(track.buffer.newest_s - track.reach_s for track in tracks)
        about = int((start_s - self._start_s(0)) // self._stride_s)
        # The quotient is rounded; what counts is the comparison.
        return next((window for window in (about + 1, about, about - 1) if decided(window)), about - 2)

    def _covered(self, tracks: Sequence[Track], last: int) -> NDArray[np.int64]:
        """The windows up to `last` that lie in a stretch without a hole of every modality.

        The cost is that of the windows found, not of the time that has passed: a clock may leap ahead by years.
        """
        origin_s, stride_s = self._start_s(0), self._stride_s
        spans: list[tuple[float, float]] = [(self._next, last)]
        for track in tracks:
            first_s, last_s = track.runs()
            begin = np.floor((first_s - SLACK_S - origin_s) / stride_s)
            end = np.floor((last_s - track.reach_s - origin_s) / stride_s) + 1
            spans = list(_overlaps(spans, list(zip(begin.tolist(), end.tolist(), strict=True))))
        pieces = [np.arange(int(begin), int(end) + 1) for begin, end in spans]
        windows: NDArray[np.int64] = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *pieces]))
        for track in tracks:
            windows = windows[track.covers(_starts_s(origin_s, windows, stride_s))]
        return windows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WindowSet:
    """The windows of recordings: per modality (N, T, *shape), and of each its class index or UNLABELLED, (N,)."""

    arrays: dict[str, Floats]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> "WindowSet":
        """The windows of these rows."""
        return WindowSet(arrays={name: array[rows] for name, array in self.arrays.items()}, labels=self.labels[rows])


def windows_of(
    recordings: Recording | Sequence[Recording],
    modalities: Sequence[Modality] | Sequence[str],
    spec: WindowSpec,
    classes: Sequence[str] = (),
) -> WindowSet:
    """Every window of the recordings, in their order, through the same windower that live streams use.

    A modality that is given by name alone is resampled to the first recording's nominal rate. A window's label is the
    one that most of its labelled instants have, of equally many the first among `classes`, as an index of `classes`;
    UNLABELLED where that label is none of them or no instant is labelled. Labels are told apart by their names.

    Raises:
        SensorError: when a recording lacks a modality or has it in another shape or unit.
    """
    played = [recordings] if isinstance(recordings, Recording) else list(recordings)
    if not played or not modalities:
        raise SensorError("windows of nothing; name at least one recording and one modality", catalogue.SOURCE_MISUSED)
    kinds = [_modality(played, each) for each in modalities]
    found: dict[str, list[Floats]] = {each.name: [np.empty((0, *spec.shape(each)), np.float32)] for each in kinds}
    labels: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    for recording in played:
        for segment in recording.segments:
            windower, starts_s = Windower(kinds, spec), []
            for block in segment.blocks([each.name for each in kinds], PIECE_S):
                for window in windower.feed(block):
                    starts_s.append(window.start_s)
                    for name, array in window.arrays.items():
                        found[name].append(array[None])
            labels.append(_vote(segment.labels, recording.label_names, np.array(starts_s), spec.window_s, classes))
    arrays = {name: np.concatenate(parts) for name, parts in found.items()}
    return WindowSet(arrays=arrays, labels=np.concatenate(labels))


def _starts_s(origin_s: float, windows: NDArray[np.int64], stride_s: float) -> Seconds:
    starts_s: Seconds = origin_s + windows.astype(np.float64) * stride_s
    return starts_s


def _overlaps(
    spans: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]
) -> Iterator[tuple[float, float]]:
    """Where two ascending rows of spans (first, last) both are."""
    a = b = 0
    while a < len(spans) and b < len(others):
        first, last = max(spans[a][0], others[b][0]), min(spans[a][1], others[b][1])
        if first <= last:
            yield first, last
        if spans[a][1] < others[b][1]:
            a += 1
        else:
            b += 1


def _modality(recordings: Sequence[Recording], wanted: Modality | str) -> Modality:
    name = wanted if isinstance(wanted, str) else wanted.name
    kind = recordings[0].modality(name) if isinstance(wanted, str) else wanted
    for recording in recordings:
        there = recording.modality(name)
        if (there.shape, there.unit) != (kind.shape, kind.unit):
            raise SensorError(
                f"{recording.name}: {name} has shape {there.shape} in {there.unit}, expected {kind.shape}"
                f" in {kind.unit}; use recordings of one kind",
                catalogue.MODALITY_UNLIKE,
            )
    return kind


def _vote(
    labels: Labels | None, names: Mapping[int, str], starts_s: Seconds, window_s: float, classes: Sequence[str]
) -> NDArray[np.int64]:
    """Class indexes (N,) of the windows that start at `starts_s` (N,): what most labelled instants of each say."""
    # Labels that are no class vote too, behind the classes, so that they do not win when votes are equal.
    ranked = {name: rank for rank, name in enumerate((*classes, *sorted(set(names.values()) - set(classes))))}
    if labels is None or not ranked:
        return np.full(len(starts_s), UNLABELLED, dtype=np.int64)
    order = np.argsort(labels.t_s, kind="stable")
    t_s, values = labels.t_s[order], labels.values[order]
    # Row i of the running counts holds how often each label occurs before instant i.
    running = np.zeros((len(values) + 1, len(ranked)), dtype=np.int64)
    for value, name in names.items():
        running[1:, ranked[name]] += values == value
    running = running.cumsum(axis=0)
    first, end = (np.searchsorted(t_s, instants_s - SLACK_S) for instants_s in (starts_s, starts_s + window_s))
    counts = running[end] - running[first]
    winners = counts.argmax(axis=1)
    return np.where((counts.max(axis=1) > 0) & (winners < len(classes)), winners, UNLABELLED)
