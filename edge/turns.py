"""Sources that are played take turns, by the times of their samples."""

import collections
import contextlib
from collections.abc import Sequence
from pathlib import Path

from sensors.source import Gap, Item, Settings, Source

# Where a source is: in which stretch between gaps, and at what time within it.
Position = tuple[int, float]


def is_played(sensor: Settings) -> bool:
    """Whether these settings play something, and not in real time."""
    return getattr(sensor, "live", None) is False


def sources_of(sensors: Sequence[Settings], base: Path) -> list[Source]:
    """Live ones each for itself; what is played, but in real time, has no order but that of its times: it takes turns.

    Raises:
        MektError: as the settings of a source do.
    """
    played = [each for each in sensors if is_played(each)]
    sources = [each.source(base) for each in sensors if each not in played]
    if len(played) > 1:
        return [*sources, Turns([each.source(base) for each in played])]
    return [*sources, *(each.source(base) for each in played)]


class Turns:
    """A source that gives what `sources` give, always the earliest of it; one that gives nothing keeps all waiting.

    Gaps come together: when one source starts anew, the others go on to where they do, or to their end.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.modalities = tuple(modality for source in sources for modality in source.modalities)
        self._feeds = [_Feed(source) for source in sources]

    def open(self) -> None:
        """Open every source.

        Raises:
            SensorError: when one is not there; the others are closed again.
        """
        with contextlib.ExitStack() as opened:
            for feed in self._feeds:
                feed.source.open()
                opened.callback(feed.source.close)
            opened.pop_all()

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What comes next, in order; empty while a source has yet to say what it senses, None when all have ended.

        Each source is waited for at most `timeout_s`.

        Raises:
            SensorError: when a source fails.
        """
        for feed in self._feeds:
            feed.fill(timeout_s)
        if all(feed.has_ended and not feed.items for feed in self._feeds):
            return None
        items: list[Item] = []
        while all(feed.has_ended or feed.items for feed in self._feeds):
            ready = [feed for feed in self._feeds if feed.items]
            if not ready:
                break
            items.append(min(ready, key=_Feed.ahead).take())
        return items

    def close(self) -> None:
        """Close every source."""
        for feed in self._feeds:
            feed.items.clear()
            feed.source.close()


class _Feed:
    """A source and what it gave that is not yet passed on."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.items: collections.deque[Item] = collections.deque()
        self.has_ended = False
        self._position: Position = (0, float("-inf"))

    def fill(self, timeout_s: float) -> None:
        """Read on when nothing is there."""
        if not self.items and not self.has_ended:
            given = self.source.read(timeout_s)
            self.has_ended = given is None
            self.items.extend(given or ())

    def ahead(self) -> Position:
        """Where the next item lies."""
        stretch, t_s = self._position
        item = self.items[0]
        if isinstance(item, Gap):
            return stretch + 1, float("-inf")
        # In a bad source times go backwards; its turn does not.
        return stretch, max(t_s, float(item.t_s[0])) if len(item.t_s) else t_s

    def take(self) -> Item:
        """The next item, which then lies behind."""
        self._position = self.ahead()
        return self.items.popleft()
