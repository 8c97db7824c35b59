"""Faults on demand: a source that fails as sensors do, drawn from a seed, and what became of each of its samples.

What befalls a sample depends on the seed, on its modality and number, and on when it was taken; never on how the source
cuts its blocks, or on how fast it is read. Stamps drift first, then jitter, then repeat or go back.

Times within are the source's progress: seconds of its samples' time since the first, gaps between segments left out.
"""

import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from mekt.schema import Bounds
from sensors.source import Block, Gap, Item, Seconds, Source

Share = Annotated[float, Bounds(low=0, high=1)]
Span = Annotated[float, Bounds(low=0, high=1e6)]
Every = Annotated[float, Bounds(low=0.1, high=1e9)] | None
# What became of a sample; `scarce` is what a wrong rate leaves out.
Fate = Literal["given", "dropped", "scarce", "gap", "unplugged"]
FATES: tuple[Fate, ...] = ("given", "dropped", "scarce", "gap", "unplugged")
GIVEN, DROPPED, SCARCE, IN_GAP, UNPLUGGED = range(len(FATES))
Change = Literal["repeated", "duplicate", "backward", "saturated"]
# What lies in a spell that so many others have followed comes too late for it.
MOST_SPELLS = 64
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultSettings:
    """What goes wrong; nothing where nothing is said. Shares are of the samples, spans in seconds.

    `drift_ppm`: how much too fast the clock goes. `jitter_s`: stamps are off by up to this, either way. `duplicate` is
    the share of stamps that repeat the one before, `backward` of those that go back by `backward_s`. `rate` is how many
    samples come for each, evenly; `dropped` the share that is lost. Values beyond `saturates_at`, either way, are cut.

    `gap_every_s` is the mean time from the end of a gap, at which the stream starts anew, to the next one of `gap_s`;
    `unplug_every_s` that of being unplugged for `unplugged_s`, when reading and opening fail.
    """

    seed: Annotated[int, Bounds(low=0, high=2**31)] = 0
    drift_ppm: Annotated[float, Bounds(low=-100_000, high=100_000)] = 0.0
    jitter_s: Span = 0.0
    duplicate: Share = 0.0
    backward: Share = 0.0
    backward_s: Span = 0.1
    rate: Annotated[float, Bounds(above=0, high=16)] = 1.0
    dropped: Share = 0.0
    saturates_at: Annotated[float, Bounds(above=0, high=1e9)] | None = None
    gap_every_s: Every = None
    gap_s: Span = 1.0
    unplug_every_s: Every = None
    unplugged_s: Span = 3.0


@dataclass(slots=True)
class Account:
    """What became of one modality's samples: how many have each fate, how many of those given were changed, and how.

    A sample that a wrong rate repeats is given once, and `repeated` says how many more come of all of them. `fates`
    holds the fate of each sample in order, as an index of FATES, where it is asked to be remembered.
    """

    counts: "Counter[Fate]" = field(default_factory=Counter)
    changes: "Counter[Change]" = field(default_factory=Counter)
    fates: bytearray | None = None


class FaultySource:
    """Any source with faults. `accounts` has what became of every sample that it gave, by modality.

    The source within stays open while this one is unplugged: what it gives of that time is what is lost.
    """

    def __init__(
        self,
        source: Source,
        settings: FaultSettings,
        *,
        speed: float = 1.0,
        remembers: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`speed`: how many of the source's seconds pass in one of `clock`; `remembers`: a byte for each sample."""
        self.modalities = source.modalities
        self.accounts = {each.name: Account(fates=bytearray() if remembers else None) for each in source.modalities}
        self._source, self._settings, self._speed, self._clock = source, settings, speed, clock
        self._gap = Gap(modalities=tuple(self.accounts))
        self._streams = {each.name: _Stream(each, settings, self.accounts[each.name]) for each in source.modalities}
        self._gaps = _Spells(settings.seed, "gap", settings.gap_every_s, settings.gap_s)
        self._unplugs = _Spells(settings.seed, "unplug", settings.unplug_every_s, settings.unplugged_s)
        self._queue: deque[Item] = deque()
        # How far the source is, and what to take from its times for that; None where it starts anew.
        self._progress_s = 0.0
        self._zero_s: float | None = None
        # Whether the plug was pulled, and until when on `clock`; None before that is told.
        self._is_pulled = False
        self._back_s: float | None = None

    def open(self) -> None:
        """Open the source, or plug this one in again.

        Raises:
            SensorError: while it is unplugged, or when the source is not there.
        """
        if not self._is_pulled:
            self._queue.clear()
            self._source.open()
            self._zero_s = None
            return
        if self._clock() < self._returns_s():
            raise _unplugged()
        self._is_pulled, self._back_s = False, None
        self._queue.appendleft(self._gap)

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What the source gives, as far as the faults let it.

        Raises:
            SensorError: from when it is unplugged until it is opened again afterwards, or as the source does.
        """
        if self._is_pulled:
            self._returns_s()
            raise _unplugged()
        if not self._queue:
            given = self._source.read(timeout_s)
            if given is None:
                return None
            self._queue.extend(given)
        items: list[Item] = []
        while self._queue and not self._is_pulled:
            items += self._passed(self._queue.popleft())
        return items

    def close(self) -> None:
        """Let the source go; while this one is unplugged it is kept, for when that is over."""
        if not self._is_pulled:
            self._queue.clear()
            self._source.close()

    def _returns_s(self) -> float:
        """When it is back; that counts from when it is first missed."""
        if self._back_s is None:
            self._back_s = self._clock() + self._settings.unplugged_s / self._speed
        return self._back_s

    def _passed(self, item: Item) -> Iterator[Item]:
        """What is left of an item. Of a block in which a spell begins, what is behind that goes back into the queue."""
        if isinstance(item, Gap):
            self._zero_s = None
            yield item
            return
        if len(item.t_s) == 0:
            yield item
            return
        if self._zero_s is None:
            self._zero_s = float(item.t_s[0]) - self._progress_s
        at_s = item.t_s - self._zero_s
        began = np.flatnonzero(at_s >= min(self._gaps.next_s, self._unplugs.next_s))
        if len(began):
            cut = int(began[0])
            self._queue.appendleft(_part(item, slice(cut, None)))
            item, at_s = _part(item, slice(0, cut)), at_s[:cut]
        if len(at_s):
            self._progress_s = max(self._progress_s, float(at_s.max()))
            yield from self._streams[item.modality].passed(item, at_s, self._gaps.hold(at_s), self._unplugs.hold(at_s))
        if not len(began):
            return
        if self._gaps.next_s <= self._unplugs.next_s:
            self._gaps.begin()
            yield self._gap
        else:
            self._unplugs.begin()
            self._is_pulled = True


class _Spells:
    """Spans of time, one after the other, with pauses between whose mean is `every_s`; none where that is None."""

    def __init__(self, seed: int, name: str, every_s: float | None, span_s: float) -> None:
        self._rng = _generator(seed, name)
        self._every_s, self._span_s = every_s, span_s
        self._begins: list[float] = []
        # When the next one begins.
        self.next_s = np.inf
        self._draw(0.0)

    def begin(self) -> None:
        """The next one has begun."""
        self._begins.append(self.next_s)
        del self._begins[:-MOST_SPELLS]
        self._draw(self.next_s + self._span_s)

    def hold(self, at_s: Seconds) -> Mask:
        """Which of these instants (n,) lie in one that has begun."""
        latest = np.searchsorted(self._begins, at_s, side="right") - 1
        ends_s = np.array([*self._begins, -np.inf]) + self._span_s
        return at_s < ends_s[latest]

    def _draw(self, from_s: float) -> None:
        if self._every_s is not None:
            # Two in one sample's time would be one.
            self.next_s = from_s + max(0.01, float(self._rng.exponential(self._every_s)))


class _Stream:
    """What befalls one modality's samples, in their order."""

    def __init__(self, modality: Modality, settings: FaultSettings, account: Account) -> None:
        self._period_s = 1 / modality.rate_hz
        self._settings, self._account = settings, account
        self._count = 0
        self._last_s = np.nan
        names = ("dropped", "jitter", "duplicate", "backward")
        self._chance = {name: _generator(settings.seed, f"{modality.name} {name}") for name in names}

    def passed(self, block: Block, at_s: Seconds, in_gap: Mask, is_unplugged: Mask) -> Iterator[Block]:
        """What is left of a block that lies at `at_s` (n,)."""
        settings, count = self._settings, len(at_s)
        draws = {name: rng.random(count) for name, rng in self._chance.items()}
        copies = self._copies(count)
        fates = np.where(draws["dropped"] < settings.dropped, DROPPED, GIVEN)
        fates[copies == 0] = SCARCE
        fates[in_gap] = IN_GAP
        fates[is_unplugged] = UNPLUGGED
        self._note(fates)
        given = np.repeat(np.flatnonzero(fates == GIVEN), copies[fates == GIVEN])
        if len(given) == 0:
            return
        t_s = block.t_s + at_s * settings.drift_ppm * 1e-6 + settings.jitter_s * (2 * draws["jitter"] - 1)
        first = np.concatenate([[True], np.diff(given) > 0])
        # A copy's place among those of its sample.
        place = np.arange(len(given)) - np.maximum.accumulate(np.where(first, np.arange(len(given)), 0))
        stamps_s = t_s[given] + place / copies[given] * self._period_s
        backward = draws["backward"][given] < settings.backward
        stamps_s[backward] -= settings.backward_s
        duplicate = (draws["duplicate"][given] < settings.duplicate) & first
        # Before the very first there is none.
        duplicate[0] &= not np.isnan(self._last_s)
        stamps_s = self._repeating(stamps_s, duplicate)
        values = block.values[given]
        if settings.saturates_at is not None:
            beyond = (np.abs(values) > settings.saturates_at).any(axis=tuple(range(1, values.ndim)))
            values = np.clip(values, -settings.saturates_at, settings.saturates_at)
            self._account.changes["saturated"] += int((beyond & first).sum())
        changes = self._account.changes
        changes["repeated"] += int((~first).sum())
        changes["duplicate"] += int(duplicate.sum())
        changes["backward"] += int((backward & first).sum())
        yield Block(modality=block.modality, t_s=stamps_s, values=values)

    def _copies(self, count: int) -> NDArray[np.int64]:
        """How often each of the next samples (count,) comes: the running sum is the rate's, rounded down."""
        numbers = np.arange(self._count, self._count + count + 1)
        self._count += count
        # What a rate such as 0.1 makes of 10 is 1, however it is rounded.
        copies: NDArray[np.int64] = np.diff(np.floor(numbers * self._settings.rate + 1e-9)).astype(np.int64)
        return copies

    def _repeating(self, stamps_s: Seconds, duplicate: Mask) -> Seconds:
        """The stamps with those before them in the places of the duplicates."""
        before_s = np.concatenate([[self._last_s], stamps_s])
        source = np.maximum.accumulate(np.where(duplicate, 0, np.arange(1, len(before_s))))
        repeated_s: Seconds = before_s[source]
        self._last_s = float(repeated_s[-1])
        return repeated_s

    def _note(self, fates: NDArray[np.int64]) -> None:
        for fate in np.unique(fates).tolist():
            self._account.counts[FATES[fate]] += int((fates == fate).sum())
        if self._account.fates is not None:
            self._account.fates += fates.astype(np.uint8).tobytes()


def _part(block: Block, cut: slice) -> Block:
    return Block(modality=block.modality, t_s=block.t_s[cut], values=block.values[cut])


def _generator(seed: int, name: str) -> "np.random.Generator":
    """Each kind of chance has its own, so that none depends on what else is drawn."""
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def _unplugged() -> SensorError:
    return SensorError(
        "unplugged, as the faults in the settings ask for; it returns by itself", catalogue.SENSOR_UNUSABLE
    )
