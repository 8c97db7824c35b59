"""Several sources as one: played ones take turns by the times of their samples; of live ones all comes as it comes."""

import collections
import contextlib
from collections.abc import Sequence

from sensors.lasting import Lasting
from sensors.source import Gap, Item, Source

# How long each of several live sources is waited for in turn.
MOMENT_S = 0.02

# Where a source is: in which stretch between gaps, and at what time within it.
Position = tuple[int, float]


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


class Together:
    """A source that gives what live `sources` give, as it comes, and ends when all have ended.

    None keeps the others waiting; one that fails is opened again.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.modalities = tuple(modality for source in sources for modality in source.modalities)
        self._sources = [Lasting(source) for source in sources]
        self._left = list(self._sources)

    def open(self) -> None:
        """Each is opened when it can be."""
        self._left = list(self._sources)

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What has come, each being waited for in turn, for a moment; None when all have ended."""
        items: list[Item] = []
        for source in list(self._left):
            given = source.read(min(timeout_s, MOMENT_S))
            if given is None:
                self._left.remove(source)
                source.close()
            items.extend(given or ())
        return items if self._left or items else None

    def close(self) -> None:
        """Close every source."""
        for source in self._sources:
            source.close()


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
