"""A recording played as if it were a sensor: in real time, faster, or as fast as it is read. Labels stay behind."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from mekt import catalogue
from mekt.errors import SensorError, SettingsError
from mekt.schema import Bounds, Later
from sensors.recording import not_there, read_recording
from sensors.source import Block, Gap, Item, SensedNames, Source, named_once
from sensors.stream import Recording, Segment

if TYPE_CHECKING:
    from sensors.faults import FaultSettings
else:
    FaultSettings = Annotated[object, Later("sensors.faults.FaultSettings")]

# At most so many items a call: a reader sees progress, and what it holds stays small.
MOST_ITEMS = 64
Speed = Annotated[float, Bounds(above=0, high=1e6)]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplaySettings:
    """Recordings, one after the other; relative paths start at the settings file.

    `speed` is how many times faster than real time; 1e6 is as fast as anything reads. With `live` times are those of
    the playing, so that its windows align with other sensors'; without, they are the recordings' own.
    """

    kind: Literal["replay"] = "replay"
    modalities: SensedNames
    recordings: Annotated[tuple[str, ...], Bounds(longest=10_000)] = ()
    speed: Speed = 1.0
    live: bool = False
    faults: FaultSettings | None = None

    def __post_init__(self) -> None:
        named_once(self.modalities)
        in_real_time(self.speed, live=self.live)
        if not self.recordings:
            raise ValueError('recordings: a replay needs a path, such as recordings = ["user01.npz"]')

    def source(self, base: Path) -> Source:
        """The recordings as a source.

        Raises:
            SettingsError: when one is not there.
            SensorError: when one cannot be read or lacks a modality.
        """
        paths = [base / path for path in self.recordings]
        for path in paths:
            if not path.is_file():
                raise SettingsError(f"sensors.recordings: {not_there(path)}", catalogue.RECORDING_NOT_FOUND)
        recordings = [read_recording(path, self.modalities) for path in paths]
        return playing(recordings, self.modalities, speed=self.speed, live=self.live, faults=self.faults)


def in_real_time(speed: float, *, live: bool) -> None:
    """Raise ValueError, as settings do, when times are to be those of the playing, and it is not in real time."""
    if live and speed != 1:
        raise ValueError(f"live: what is played {speed:g} times as fast is not live; leave speed out")


def playing(
    recordings: Recording | Sequence[Recording],
    modalities: Sequence[str],
    *,
    speed: float,
    live: bool,
    faults: FaultSettings | None,
) -> Source:
    """The recordings as a source, with the faults that are asked for."""
    replay = ReplaySource(recordings, modalities, speed=speed, live=live)
    if faults is None:
        return replay
    from sensors.faults import FaultySource

    return FaultySource(replay, faults, speed=speed)


class ReplaySource:
    """Plays recordings one after the other, with a gap before each segment."""

    def __init__(
        self,
        recordings: Recording | Sequence[Recording],
        modalities: Sequence[str],
        *,
        speed: float = 1.0,
        live: bool = False,
        block_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is played before `open`.

        Args:
            recordings: all of them with the same modalities.
            modalities: the names of those that are delivered.
            speed: how many times faster than real time; infinity plays as fast as it is read.
            live: times are those of `clock` at which a sensor would take the samples, when `speed` is 1; else they are
                the recordings' own.
            block_s: the span of one block, in seconds of the recording.
            clock: the seconds by which playing is paced.
            wait: lets that many seconds of `clock` pass.

        Raises:
            SensorError: when a recording lacks a modality or has it in another form than the first, or when
                `speed` or `block_s` is not more than 0.
        """
        if not speed > 0:
            raise SensorError(
                f"speed: expected more than 0, got {speed:g}; 1 is real time, inf as fast as it is read",
                catalogue.SOURCE_MISUSED,
            )
        if not block_s > 0:
            raise SensorError(
                f"block_s: expected more than 0, got {block_s:g}; 0.5 suits most readers", catalogue.SOURCE_MISUSED
            )
        played = [recordings] if isinstance(recordings, Recording) else list(recordings)
        if not played or not modalities:
            raise SensorError(
                "a replay of nothing; name at least one recording and one modality", catalogue.SOURCE_MISUSED
            )
        self.modalities = tuple(played[0].modality(name) for name in modalities)
        for recording in played:
            for kind in self.modalities:
                if recording.modality(kind.name) != kind:
                    raise SensorError(
                        f"{recording.name}: {kind.name} is not what it is in {played[0].name};"
                        " replay recordings of one kind",
                        catalogue.MODALITY_UNLIKE,
                    )
        self._names = tuple(modalities)
        # A source cannot leak what it does not have: labels and other modalities are left out here.
        self._segments = [
            Segment(name=segment.name, streams={name: segment.streams[name] for name in self._names})
            for recording in played
            for segment in recording.segments
        ]
        self._speed, self._block_s, self._is_live = speed, block_s, live
        self._clock, self._wait = clock, wait
        self._began_s: float | None = None
        self._items: Iterator[tuple[float, Item]] = iter(())
        self._pending: tuple[float, Item] | None = None

    def open(self) -> None:
        """Play from the beginning."""
        self._began_s = self._clock()
        self._items = self._timeline(self._began_s)
        self._pending = next(self._items, None)

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What is due by now, waiting up to `timeout_s` (real seconds) for it; None behind the end and once closed.

        Raises:
            SensorError: when it was never opened.
        """
        if self._began_s is None:
            raise SensorError("the replay was not opened; open a source before it is read", catalogue.SOURCE_MISUSED)
        if self._pending is None:
            return None
        left_s = self._pending[0] - (self._clock() - self._began_s)
        if left_s > 0:
            if timeout_s > 0:
                self._wait(min(left_s, timeout_s))
            if left_s > timeout_s:
                return ()
        # What was waited for is due, however the clock rounds.
        due_s = max(self._clock() - self._began_s, self._pending[0])
        items: list[Item] = []
        while self._pending is not None and self._pending[0] <= due_s and len(items) < MOST_ITEMS:
            items.append(self._pending[1])
            self._pending = next(self._items, None)
        return items

    def close(self) -> None:
        """End the playing."""
        self._items, self._pending = iter(()), None

    def _timeline(self, began_s: float) -> Iterator[tuple[float, Item]]:
        """Every item with the moment, in real seconds since the start, at which a sensor would have it ready."""
        # Times that leap or go back must not stop the clock of the replay: it only goes forward, a block at a time.
        played_s = 0.0
        for segment in self._segments:
            yield played_s / self._speed, Gap(modalities=self._names)
            newest_s = min(float(segment.streams[name].t_s[0]) for name in self._names)
            shift_s = began_s + played_s - newest_s
            for block in segment.blocks(self._names, self._block_s):
                played_s += max(0.0, float(block.t_s.max()) - newest_s)
                newest_s = max(newest_s, float(block.t_s.max()))
                if self._is_live:
                    block = Block(modality=block.modality, t_s=block.t_s + shift_s, values=block.values)
                yield played_s / self._speed, block
