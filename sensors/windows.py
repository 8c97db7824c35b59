"""Windows out of streams: each modality resampled to its nominal rate, all of them on one grid.

Shapes: n samples, T samples of a window, N windows. Sample i of window k lies at origin + k * stride + i / rate, where
the origin is the first instant at which every modality that is needed has data. What a grid point becomes depends only
on the samples around it, so windows do not depend on how a stream is cut into blocks, nor on the order in which blocks
of different modalities arrive, as long as none lags more behind another than `LAG_S`, or than is waited for it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality, WindowSpec
from sensors.grid import Decision, Grid, decide
from sensors.quality import Quality
from sensors.source import Floats, Gap, Item, Seconds, Values
from sensors.stream import Labels, Recording
from sensors.track import LAG_S, SLACK_S, Track

# The label of a window that belongs to no class.
UNLABELLED = -1
# A recording is windowed in pieces of this length, which bounds what is held twice.
PIECE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Window:
    """One window: its start on the source's clock, per modality the values of T samples, and how well it was sensed.

    Frames are those of other windows too: whoever changes values takes a copy. `place` is the number of its grid, and
    its own on that: no window of one grid lies on samples of another.
    """

    start_s: float
    values: Mapping[str, Values]
    quality: Mapping[str, Quality] = field(default_factory=dict)
    place: tuple[int, int] = (0, 0)

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
    """Takes what sources give and gives the windows that enough modalities cover. Pure; its memory is bounded.

    `sets` are the modalities that suffice for a window, the preferred ones first: by default all of them together. Each
    window has those of the first set that covers it. One that a later set covers waits for `wait_s`, up to `LAG_S` or
    forever, of the stream's time behind its end, as long as an earlier set may yet cover it. What has let a window wait
    so long is lost, and is not waited for until it has caught up.

    It is told how well windows were sensed (`quality`), unless they are not to be `rated`. `ranges` are those of
    modalities whose sensors have one, in their unit: what is beyond is told as saturated.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        spec: WindowSpec,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        *,
        sets: Sequence[Collection[str]] = (),
        wait_s: float = math.inf,
        rated: bool = True,
    ) -> None:
        lag_s, known = LAG_S + spec.window_s, ranges or {}
        self._stride_s, self._rated = spec.stride_s, rated
        self._tracks = {each.name: Track(each, spec.samples(each), lag_s, known.get(each.name)) for each in modalities}
        self._sets = [frozenset(names) for names in sets] or [frozenset(self._tracks)]
        self._late_s = spec.window_s + wait_s
        self._windows: Counter[str] = Counter()
        self._grid: Grid | None = None
        self._grids = 0
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

    def feed(self, item: Item) -> list[Window]:
        """The windows that `item` completes, in order of time; other modalities than the windower's are passed over.

        Behind a gap of some modalities their windows begin anew, on the same grid; when all have begun anew, so does
        the grid, and what waited is given. A clock that is set back acts as a gap of all.

        Raises:
            SensorError: when the samples do not have the modality's shape.
        """
        if isinstance(item, Gap):
            for name in self._tracks.keys() & set(item.modalities):
                self._tracks[name].restart()
            return self._anew() if all(track.is_anew for track in self._tracks.values()) else self._completed()
        track = self._tracks.get(item.modality)
        if track is None:
            return []
        t_s, values = track.checked(item)
        given: list[Window] = []
        while len(t_s):
            used = track.append(t_s, values)
            given += self._completed()
            t_s, values = t_s[used:], values[used:]
            if len(t_s):
                given += self._anew()
        return given

    def _anew(self) -> list[Window]:
        """Nothing more comes of the present grid: the windows that waited. Samples are forgotten, and the grid."""
        given = self._completed(is_last=True)
        self._grid = None
        for track in self._tracks.values():
            track.clear()
        return given

    def _completed(self, *, is_last: bool = False) -> list[Window]:
        # What is before this is late, as windows whose start is so far behind the newest sample.
        late_s = math.inf if is_last else max(t.buffer.newest_s for t in self._tracks.values()) - self._late_s
        if self._grid is None:
            self._begin(late_s)
        if self._grid is None:
            return []
        grid, tracks = self._grid, self._tracks
        made = decide(grid, tracks, self._sets, self._next, grid.first(lambda start_s: start_s > late_s, late_s))
        self._windows["made"] += len(made.windows)
        self._windows["hole"] += made.stop - self._next - len(made.windows)
        given = self._made(grid, made) if len(made.windows) else []
        if made.stop > self._next:
            self._next = made.stop
            for track in tracks.values():
                track.buffer.forget_before(grid.start_s(made.stop))
        return given

    def _begin(self, late_s: float) -> None:
        """Lay the grid: a window starts where all modalities of the first set that is there have begun to come."""
        begins_s = [
            max(self._tracks[name].buffer.oldest_s for name in names)
            for names in self._sets
            if all(len(self._tracks[name].buffer) for name in names)
        ]
        if not begins_s or (len(begins_s) < len(self._sets) and min(begins_s) > late_s):
            return
        self._grid = Grid(origin_s=begins_s[0], stride_s=self._stride_s)
        self._grids += 1
        first_s = min(begins_s) - SLACK_S
        self._next = int(self._grid.first(lambda start_s: start_s >= first_s, first_s))

    def _made(self, grid: Grid, made: Decision) -> list[Window]:
        starts_s = grid.starts_s(made.windows)
        values: list[dict[str, Values]] = [{} for _ in starts_s]
        quality: list[dict[str, Quality]] = [{} for _ in starts_s]
        for name, track in self._tracks.items():
            rows = np.flatnonzero(np.array([name in names for names in self._sets])[made.sets])
            if len(rows):
                made_of, ratings = track.resample(starts_s[rows], rated=self._rated)
                for row, those in zip(rows.tolist(), made_of, strict=True):
                    values[row][name] = those
                for row, each in zip(rows.tolist(), ratings, strict=False):
                    quality[row][name] = each
        return [
            Window(start_s=start_s, values=those, quality=each, place=(self._grids, number))
            for start_s, number, those, each in zip(
                starts_s.tolist(), made.windows.tolist(), values, quality, strict=True
            )
        ]


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
