"""Sources read side by side, each on a thread of its own, into one bounded inbox; none waits for another."""

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sensors.lasting import Lasting
from sensors.source import Item, Source

READ_S = 1.0
RETRY_S = 5.0
# How long the end of all threads is waited for; a read takes READ_S at most.
LEAVE_S = 2 * READ_S
# Batches that wait to be taken; then sources do.
INBOX_EVENTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensed:
    """What a source has given that is read `by` these."""

    items: Sequence[Item]
    by: "Readers"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceEnded:
    """A source has ended for good, as a recording does, that was read `by` these."""

    by: "Readers"


class Readers:
    """Reads `sources` into `inbox` until `stop`. An inbox that is full keeps them waiting.

    One that fails is opened again every `retry_s` (`sensors/lasting.py`).
    """

    def __init__(self, sources: Sequence[Source], inbox: "queue.Queue[Any]", *, retry_s: float = RETRY_S) -> None:
        self._inbox, self._retry_s = inbox, retry_s
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(source,), daemon=True) for source in sources]

    def start(self) -> None:
        """Begin to sense."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End it. A source that does not return from its driver in time is left behind."""
        self._stopping.set()
        ends_s = time.monotonic() + LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))

    def _read(self, source: Source) -> None:
        lasting = Lasting(source, self._retry_s, wait=self._stopping.wait)
        with contextlib.closing(lasting):
            while not self._stopping.is_set():
                items = lasting.read(READ_S)
                if items is None:
                    self._tell(SourceEnded(by=self))
                    return
                if items:
                    self._tell(Sensed(items=items, by=self))

    def _tell(self, news: Sensed | SourceEnded) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._inbox.put(news, timeout=READ_S)
                return


class Together:
    """A source that gives what live `sources` give, as it comes, and ends when all have ended."""

    def __init__(self, sources: Sequence[Source], *, retry_s: float = RETRY_S) -> None:
        self.modalities = tuple(modality for source in sources for modality in source.modalities)
        self._inbox: queue.Queue[Sensed | SourceEnded] = queue.Queue(INBOX_EVENTS)
        self._readers, self._reading = Readers(sources, self._inbox, retry_s=retry_s), len(sources)

    def open(self) -> None:
        """Each is opened when it can be. Once."""
        self._readers.start()

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What has come from one of them; None when all have ended."""
        if self._reading:
            with contextlib.suppress(queue.Empty):
                event = self._inbox.get(timeout=timeout_s)
                if isinstance(event, Sensed):
                    return event.items
                self._reading -= 1
        return () if self._reading else None

    def close(self) -> None:
        """Let every source go."""
        self._readers.stop()
