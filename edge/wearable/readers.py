"""Sources read side by side, each on a thread of its own, into one bounded inbox; none waits for another."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mekt.errors import SensorError
from sensors.source import Gap, Item, Source

log = logging.getLogger(__name__)

READ_S = 1.0
RETRY_S = 5.0
# How long the end of all threads is waited for; a read takes READ_S at most.
LEAVE_S = 2 * READ_S


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensed:
    """What a source has given."""

    items: Sequence[Item]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceEnded:
    """A source has ended for good, as a recording does."""


class Readers:
    """Reads `sources` into `inbox` until `stop`. An inbox that is full keeps them waiting.

    One that fails is opened again every `retry_s`; that is logged once for as long as its reason is the same, and a
    gap tells that its stream starts anew.
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
        problem = ""
        while not self._stopping.is_set():
            try:
                source.open()
                while not self._stopping.is_set():
                    items = source.read(READ_S)
                    if items is None:
                        self._tell(SourceEnded())
                        return
                    if items:
                        self._tell(Sensed(items=items))
                        problem = ""
            except Exception as error:  # a driver may raise anything
                expected = isinstance(error, SensorError)
                text = str(error) if expected else f"{type(error).__name__}: {error}"
                if text != problem:
                    log.error("%s; trying again every %g s", text, self._retry_s, exc_info=None if expected else error)
                problem = text
                self._tell(Sensed(items=[Gap(modalities=tuple(each.name for each in source.modalities))]))
            finally:
                with contextlib.suppress(Exception):
                    source.close()
            self._stopping.wait(self._retry_s)

    def _tell(self, news: Sensed | SourceEnded) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._inbox.put(news, timeout=READ_S)
                return
