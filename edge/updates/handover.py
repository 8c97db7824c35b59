"""What crosses between a wearable's loop and its updates, which have a thread each: releases, windows, news."""

import contextlib
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.runtime import Decisions
from edge.updates.recent import Recent
from export.release import Release
from mekt.messages import Unfit
from mekt.plan import BlobRef
from sensors.source import Floats

INBOX_EVENTS = 256
# How long a failure of the release at work waits for the answer what to run instead.
ANSWER_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Saw:
    """This release gave a window a class, of this probability and in this time."""

    release: BlobRef | None
    now_s: float
    probability: float
    latency_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensed:
    """The sensors gave something while this release was at work."""

    release: BlobRef | None
    now_s: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Failure:
    """This release raised an error. Whoever waits for it is told when it is known what to run instead."""

    release: BlobRef | None
    why: Unfit
    answered: threading.Event = field(default_factory=threading.Event)


class Handover:
    """`inbox` holds what the updates are told, by the loop and others. Times are the loop's, monotonic seconds."""

    def __init__(self) -> None:
        self.inbox: queue.Queue[Any] = queue.Queue(INBOX_EVENTS)
        # The release of which the updates count what it senses and says. For any other they are not woken up.
        self.on_trial: BlobRef | None = None
        self._lock = threading.Lock()
        self._recent = Recent()
        self._next: tuple[BlobRef, Release] | None = None
        # The loop's own: what it runs, and when it looked last.
        self._at_work: BlobRef | None = None
        self._now_s = 0.0

    # The updates' side

    def hand_over(self, ref: BlobRef, release: Release) -> None:
        """Have the loop run this from its next look on."""
        with self._lock:
            self._next = ref, release

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits for the loop."""
        return self._next is None

    def windows(self) -> list[dict[str, Floats]]:
        """Recent ones, as `Recent.groups` gives them."""
        with self._lock:
            return self._recent.groups()

    @property
    def variety(self) -> tuple[int, int]:
        """How many windows there were, and of how many classes there are enough."""
        with self._lock:
            return self._recent.count, self._recent.classes

    # The loop's side

    def take(self, now_s: float) -> Release | None:
        """What is to be run from now on, if that is another release. It is kept no longer: its models are large."""
        self._now_s = now_s
        with self._lock:
            if self._next is None:
                return None
            (self._at_work, release), self._next = self._next, None
        return release

    def sensed(self) -> None:
        """The sensors gave something: counted in a trial."""
        self._tell(Sensed(release=self._at_work, now_s=self._now_s))

    def saw(self, arrays: Mapping[str, Floats], decisions: Decisions, latency_ms: float) -> None:
        """The release at work gave windows, per modality (N, T, ...), their classes: kept, and counted in a trial."""
        for row, (label, probability) in enumerate(decisions.best):
            with self._lock:
                self._recent.add({name: array[row] for name, array in arrays.items()}, label)
            self._tell(Saw(release=self._at_work, now_s=self._now_s, probability=probability, latency_ms=latency_ms))

    def failed(self, why: Unfit) -> None:
        """The release at work raised an error; when this returns, what to run instead can be taken, if there is any."""
        failure = Failure(release=self._at_work, why=why)
        with contextlib.suppress(queue.Full):
            self.inbox.put(failure, timeout=ANSWER_S)
            failure.answered.wait(ANSWER_S)

    def _tell(self, what: Saw | Sensed) -> None:
        if what.release is not None and what.release == self.on_trial:
            # Whoever is too busy to count a window loses nothing by it.
            with contextlib.suppress(queue.Full):
                self.inbox.put_nowait(what)
