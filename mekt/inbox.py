"""What the link tells its owner: events, through a bounded queue that never holds the network thread up for long."""

import collections
import contextlib
import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger(__name__)

# How long a message waits for room, and how often it looks whether the link is to stop.
ROOM_S, LOOK_S = 2.0, 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Connected:
    """The broker accepted the login; subscriptions are on their way."""

    protocol: Literal["5", "3.1.1"]
    session_present: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Disconnected:
    """The connection is gone; the link tries again by itself."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A message arrived."""

    topic: str
    payload: bytes
    retained: bool


LinkEvent = Connected | Disconnected | Received


class Inbox:
    """The way of events into the owner's queue, used by the network thread; `stopping` says that nobody reads it."""

    def __init__(self, events: "queue.Queue[Any]", stopping: threading.Event) -> None:
        self._events = events
        self._stopping = stopping
        self._owed: collections.deque[Connected | Disconnected] = collections.deque()
        self._dropped = 0

    def tell(self, news: Connected | Disconnected) -> None:
        """News of the connection: what finds no room waits for it, and comes before all that is younger."""
        self._owed.append(news)
        self.pay()

    def deliver(self, message: Received) -> None:
        """A message, behind all news. What finds no room within ROOM_S is dropped: it will be asked for again."""
        ends_s = time.monotonic() + ROOM_S
        while not self._stopping.is_set() and time.monotonic() < ends_s:
            self.pay()
            if not self._owed:
                with contextlib.suppress(queue.Full):
                    self._events.put(message, timeout=LOOK_S)
                    return
        if self._stopping.is_set():
            return
        self._dropped += 1
        if self._dropped == 1:
            log.warning("the inbox is full: messages are dropped and will be asked for again")

    def pay(self) -> None:
        """Put the news that found no room before."""
        with contextlib.suppress(queue.Full):
            while self._owed:
                self._events.put_nowait(self._owed[0])
                self._owed.popleft()
