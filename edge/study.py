"""This device's model at work: local learning, and knowledge computed again, one at a time beside the daemon's loop."""

import logging
import queue
from collections.abc import Callable, Mapping
from typing import Any

from edge.budget import Budget
from edge.lessons import Late, Learned, Lesson
from edge.memory import Memory
from edge.protection import Protection
from mekt.database import DamagedStateError
from mekt.messages import Learning, Privacy
from mekt.process import Job, JobDone
from sensors.store import Hold

log = logging.getLogger(__name__)


class Study:
    """Lessons learned with the model in `memory`, on a thread of their own.

    `inbox` gets a `JobDone` with a `Learned` or with recalled knowledge, and before the former perhaps a `Late`. With a
    `budget` what is learned is protected before it is kept, and paid for when it is.
    """

    def __init__(self, memory: Memory, inbox: "queue.Queue[Any]", budget: Budget | None = None) -> None:
        self._memory = memory
        self._inbox = inbox
        self._budget = budget
        if budget is not None and memory.progress.trained >= 0 and not memory.spent:
            log.warning("knowledge of earlier rounds was shown without noise; no epsilon counts that")
        self._job: Job | None = None
        # Jobs have numbers, so that one that was left behind is not taken for the one at work.
        self._jobs = 0
        self._remarked: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """Whether it is learning, or computing again."""
        return self._job is not None

    @property
    def share_done(self) -> float:
        """How much of that is done."""
        return 0.0 if self._job is None else self._job.share_done

    def privacy(self, lesson: Lesson | None) -> Privacy | None:
        """How much of its private data this device has given away, and whether `lesson` would exceed its budget."""
        if self._budget is None:
            return None
        cost = None if lesson is None else self._budget.cost(lesson.plan, len(lesson.architectures))
        return self._budget.told(self._memory.spent, cost)

    def learn(self, lesson: Lesson, held: Hold, *, late: bool) -> bool:
        """Learn from the windows that are held; with `late` what was learned before is made ready first.

        They are let go in any case, at the end of the work or at once. False when the privacy budget does not allow it.
        With a budget nothing is late: what was learned before would be shown once more, of other views, at the price of
        another round.
        """
        protection = None
        if self._budget is not None:
            cost, late = self._budget.cost(lesson.plan, len(held.names)), False
            if not self._budget.allows(self._memory.spent, cost):
                refusal = self._budget.refusal(self._memory.spent, cost)
                log.warning("round %d: %s; this device sits it out", lesson.round + 1, refusal)
                held.let_go()
                return False
            protection = Protection(mechanism=self._budget.settings.mechanism, cost=cost)
        weights, blobs = self._weights(), self._memory.blobs

        def work(progress: Callable[[int, int], None]) -> Learned:
            with held:
                if late and weights is not None:
                    self._inbox.put(Late(round=lesson.round, knowledge=lesson.recall(weights, blobs)))
                return lesson.learn(held.check(), weights, blobs, progress, protection)

        self._start(work)
        return True

    def recall(self, number: int, lesson: Lesson | None) -> bool:
        """Compute anew what was learned in a round and has since been lost from the disk.

        False when it cannot be: only the last round's can, and by its lesson. What was shown under noise never can, as
        it would be shown twice: the round is learned again, and paid for again.
        """
        recallable = number == self._memory.progress.trained and self._budget is None
        weights, blobs = self._weights() if recallable else None, self._memory.blobs
        if weights is None or lesson is None or lesson.round != number:
            return False
        log.warning("round %d: the knowledge is lost from the disk; computing it again", number + 1)
        self._start(lambda _: lesson.recall(weights, blobs))
        return True

    def has_ended(self, done: JobDone) -> bool:
        """Whether that was the end of what is at work. Another one belonged to a plan or a round left behind."""
        if self._job is None or done.name != self._job.name:
            return False
        self._job = None
        return True

    def leave(self, timeout_s: float) -> None:
        """Give up what is at work, and wait for its end."""
        if self._job is not None:
            self._job.cancel(timeout_s)
            self._job = None

    def keep(self, learned: Learned) -> None:
        """Make durable what was learned, and say what looks odd in it, once.

        Raises:
            StateError: when the disk is full or read-only.
        """
        for name in learned.remarks.keys() - self._remarked:
            self._remarked.add(name)
            log.warning("%s", learned.remarks[name])
        metrics: dict[Learning, float] = {}
        # They are of private windows, and under no noise.
        if not learned.cost:
            metrics = {"reconstruction": learned.loss.reconstruction, "transfer": learned.loss.transfer}
        self._memory.trained(learned.round, learned.weights, learned.knowledge, learned.windows, metrics, learned.cost)
        log.info(
            "round %d: learned from %d windows, reconstruction %.4f, transfer %.4f",
            learned.round + 1,
            learned.windows,
            learned.loss.reconstruction,
            learned.loss.transfer,
        )

    def keep_recalled(self, knowledge: Mapping[str, bytes]) -> None:
        """Make knowledge that was lost durable again. Another processor or torch may have computed it to other bytes.

        Raises:
            StateError: when the disk is full or read-only.
        """
        self._memory.recalled(self._memory.progress.trained, knowledge)

    def _weights(self) -> bytes | None:
        """This device's model. One that was damaged on the disk is lost: it learns from the start."""
        model = self._memory.progress.plan
        try:
            return self._memory.weights()
        except DamagedStateError as error:
            self._memory.start_afresh(error)
            self._memory.begin(model)
            return None

    def _start(self, work: Callable[[Callable[[int, int], None]], Any]) -> None:
        self._jobs += 1
        self._job = Job(f"learning-{self._jobs}", work, self._inbox)
