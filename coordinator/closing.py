"""Rounds that close: learned from beside the coordinator's loop, reported, and kept as history."""

import contextlib
import logging
import queue
import time
from collections.abc import Callable
from typing import Any

from coordinator.learner import Closed, Learner
from coordinator.ledger import Ledger
from coordinator.quarantine import Standings
from coordinator.signs import news
from coordinator.standing import listed
from coordinator.summing import SecretSum
from mekt.files import BlobStore
from mekt.messages import RoundReport
from mekt.process import LOOP_S, Job, JobDone, Stop

log = logging.getLogger(__name__)


class Closing:
    """Learns from one round at a time on a thread of its own, which reports to `inbox`.

    The inbox gets a `JobDone` with what the round came to and the global knowledge of the next one.
    """

    def __init__(
        self, *, learner: Learner, ledger: Ledger, blobs: BlobStore, rounds: int, inbox: "queue.Queue[Any]"
    ) -> None:
        self._learner, self._ledger, self._blobs = learner, ledger, blobs
        self._rounds = rounds
        self._inbox = inbox
        self._job: Job | None = None
        self.reports: tuple[RoundReport, ...] = ()

    @property
    def share_done(self) -> float:
        """How much of the learning is done."""
        return 0.0 if self._job is None else self._job.share_done

    def take_up(self, rounds_done: int, stop: Stop) -> dict[str, bytes] | None:
        """The global knowledge of the encoders after so many rounds, to go on from; None when stopped.

        Where there is no report yet, the one of the encoders as they are before the first round is made.

        Raises:
            MektError: when that cannot be done.
        """
        self._learner.restore(rounds_done)
        self.reports = self._ledger.reports()
        if not self.reports and not self._score_first(stop):
            return None
        return self._learner.knowledge(rounds_done)

    def begin(self, number: int, devices: tuple[str, ...], opened_at_s: float, secret: SecretSum | None = None) -> None:
        """Learn from what these devices delivered in a round that opened at `opened_at_s`, or from its secret sum.

        Whatever happens from now on, also a restart: the round is learned from these and no other.
        """
        self._ledger.collected(number, devices)
        log.info("round %d: learning from %s", number + 1, listed(devices))
        deliveries = tuple(each for each in self._ledger.deliveries(number) if each.device in devices)
        collect_s = time.monotonic() - opened_at_s

        standings = self._ledger.standings()

        def work(progress: Callable[[int, int], None]) -> tuple[Closed, dict[str, bytes]]:
            closed = self._learner.close_round(number, deliveries, self._blobs, progress, collect_s, standings, secret)
            return closed, self._learner.knowledge(number + 1)

        self._job = Job(f"round-{number}", work, self._inbox)

    def keep(self, closed: Closed) -> None:
        """Make what a round came to durable, say what it tells, and let go of what the round was learned from.

        Raises:
            StateError: when the state cannot be written.
        """
        self._job, report = None, closed.report
        for line in news(self.reports, report):
            log.warning("%s", line)
        self._report(report, closed.standings)
        log.info(
            "after round %d of %d: %s",
            report.round,
            self._rounds,
            ", ".join(f"{name} {value:.3f}" for name, value in report.metrics.items()),
        )
        self._blobs.keep_only(frozenset())

    def leave(self, timeout_s: float) -> None:
        """Give up what is being learned, and wait for its end."""
        if self._job is not None:
            self._job.cancel(timeout_s)

    def _report(self, report: RoundReport, standings: Standings | None = None) -> None:
        self._ledger.report(report, standings)
        self.reports = self._ledger.reports()

    def _score_first(self, stop: Stop) -> bool:
        log.info("scoring the encoders as they are before the first round")
        done: queue.Queue[JobDone] = queue.Queue()
        self._job = Job("first-scores", lambda _: self._learner.assess(0), done)
        while not stop.requested:
            with contextlib.suppress(queue.Empty):
                outcome = done.get(timeout=LOOP_S)
                self._job = None
                if outcome.error is not None:
                    raise outcome.error
                self._report(outcome.result)
                return True
        return False
