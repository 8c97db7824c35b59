"""A self-test of a release that has arrived, at work: it waits for windows, runs beside the release at work, ends.

One thread uses it; the test has another one, which puts a `JobDone` into the inbox. Times are monotonic seconds.
"""

import logging
from typing import TYPE_CHECKING

from edge.updates.handover import Handover
from edge.updates.machine import Figures, Judged
from edge.updates.settings import Limits
from edge.updates.slots import Slots
from mekt.messages import Unfit
from mekt.plan import BlobRef
from mekt.process import Job, JobDone

if TYPE_CHECKING:
    from edge.updates.selftest import SelfTest

log = logging.getLogger(__name__)


class Trying:
    """One release's at a time."""

    def __init__(self, limits: Limits, slots: Slots, handover: Handover) -> None:
        self._limits, self._slots, self._handover = limits, slots, handover
        self._blob: BlobRef | None = None
        self._since_s = 0.0
        self._job: Job | None = None
        self._test: SelfTest | None = None

    def begin(self, blob: BlobRef, now_s: float) -> None:
        """Try this release as soon as there are windows."""
        self._blob, self._since_s = blob, now_s

    def on_time(self, now_s: float) -> Judged | None:
        """Begin its test when there are windows; where nothing runs, none will come. A verdict where none ever came."""
        if self._blob is None or self._job is not None:
            return None
        limits, running = self._limits, self._slots.state.running
        waited_s = now_s - self._since_s
        windows, classes = self._handover.variety
        if running is not None and windows < limits.windows:
            if waited_s <= limits.patience_s:
                return None
            blob, self._blob = self._blob, None
            return Judged(blob=blob, why="untested")
        # Whoever sits all day tells little about a release: somebody who always says "sits" would be right.
        if running is not None and classes < limits.classes and waited_s < limits.classes_s:
            return None
        # Only here: it brings along what it takes to start a process, and a release comes once in months.
        from edge.updates.selftest import SelfTest

        old = None if running is None else self._slots.path(running)
        test = self._test = SelfTest(self._slots.path(self._blob), old, self._handover.windows(), limits)
        name = f"self-test {self._blob.sha256.hex()}"
        self._job = Job(name, lambda progress: test.result(), self._handover.inbox)
        return None

    def judged(self, done: JobDone) -> Judged | None:
        """What its end says, if it is that of the test under way."""
        if self._job is None or done.name != self._job.name or self._blob is None:
            return None
        blob, self._blob, self._job, self._test = self._blob, None, None, None
        unknown: tuple[Unfit, Figures] = "does-not-run", Figures()
        why, figures = unknown if done.error is not None else done.result
        log.info("the self-test of the new release: %s; %s", why or "passed", figures)
        return Judged(blob=blob, why=why, figures=figures)

    def leave(self, timeout_s: float) -> None:
        """End the test that is under way, if one is, and try nothing."""
        if self._job is not None and self._test is not None:
            self._test.stop()
            self._job.cancel(timeout_s)
        self._blob = self._job = self._test = None
