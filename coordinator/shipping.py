"""The coordinator's side of rollouts at work: announced, their zips served, wearables' words taken in.

What a person's command changes on disk is seen within `LOOK_S`.
"""

import logging
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.downstream import Downstream
from coordinator.promotion import promote
from coordinator.rollout import HOUR_S, Heard, Passed, advance, text_of
from coordinator.rollouts import Rollouts, Shipped, Sign
from coordinator.settings import FederationSettings
from coordinator.wearables import Wearables
from mekt.messages import Fitness, Rollout, RolloutStatus
from mekt.plan import BlobRef
from mekt.process import Job

log = logging.getLogger(__name__)

PROMOTION = "promotion"
# How often it is looked what others have changed, and a status made of what wearables say.
LOOK_S = 1.0
# How often the time that has passed is kept: so much of it a crash takes away, and so many of a rollout's hours.
COUNT_S, COUNTS = 60.0, 20


class Shipping:
    """The newest rollout of a federation, and the wearables. One thread uses it. Times are monotonic seconds."""

    def __init__(
        self,
        settings: FederationSettings,
        base: Path,
        state: Path,
        *,
        downstream: Downstream,
        sign: Sign | None,
        revoked: Callable[[], frozenset[str]] = frozenset,
        inbox: "queue.Queue[Any]",
    ) -> None:
        """Take up what is on disk in the folder `state`; see `coordinator.rollouts`.

        Args:
            settings: of the federation, whose file is in the folder `base`.
            base: that folder.
            state: the coordinator's state.
            downstream: it serves what is shipped.
            sign: as the coordinator, on this thread.
            revoked: who was sent away. What they said, and what the broker has kept of it, counts no more.
            inbox: gets a `JobDone` of the name `PROMOTION` when a release was promoted without a person.

        Raises:
            StateError: when it cannot be read or written.
        """
        self._settings, self._base, self._state = settings, base, state
        self._rules, self._downstream, self._inbox = settings.rollout, downstream, inbox
        self._rollouts = Rollouts(state, settings.federation, settings.rollout, sign)
        self._is_last_promoted = self._is_doubted = False
        self._wearables = Wearables()
        self._revoked = revoked
        self._gone = revoked()
        self._count_s = min(COUNT_S, self._rules.hours * HOUR_S / COUNTS)
        self._looked_at_s = self._counted_at_s = float("-inf")
        self._newest: Shipped | None = None
        self._names: dict[bytes, str] = {}
        self._announced: Rollout | None = None
        self._is_news = True
        self._status: RolloutStatus | None = None
        # What the broker kept of wearables' words comes with the connection, and may be about it.
        self._take(self._rollouts.forget(self._gone))

    def close(self) -> None:
        """Let the files go."""
        self._rollouts.close()

    def __contains__(self, device: str) -> bool:
        """Whether this is a wearable that has said so."""
        return device in self._wearables

    @property
    def wearables(self) -> frozenset[str]:
        """All that have said that they are."""
        return self._wearables.names

    def announce_again(self) -> None:
        """What was said is due once more: the broker may have forgotten what was said."""
        self._announced = None

    def heard(self, device: str, fitness: Fitness) -> None:
        """A wearable has said how it is.

        Raises:
            StateError: when that cannot be kept.
            WireError: when there are too many wearables.
        """
        if device in self._gone:
            return
        self._wearables.told(device, fitness)
        self._is_news = True
        if self._newest is None:
            return
        number, blob = self._newest.progress.number, self._newest.blob
        if fitness.number > number or (fitness.number == number and _is_of_another(fitness, blob)):
            # That other coordinator may have been this one, before its state was restored from an older copy.
            if not self._is_doubted:
                log.warning(
                    "%s knows rollout %d of another coordinator, or of a newer state than this: wearables take only "
                    "rollouts with larger numbers than they know",
                    *(device, fitness.number),
                )
            self._is_doubted = True
            return
        if fitness.number != number:
            return
        event = Heard(device=device, state=fitness.state, why=fitness.why)
        # Most words say what is known: whoever repeats them makes no work for the disk.
        if advance(self._newest.progress, event, self._rules)[0] is not self._newest.progress:
            self._take(self._rollouts.advance(event, fitness.number))

    def on_time(self, now_s: float) -> None:
        """See what a person has changed, and let time pass.

        Raises:
            StateError: when the state cannot be read or written.
        """
        if now_s - self._looked_at_s < LOOK_S:
            return
        self._looked_at_s = now_s
        gone = self._revoked()
        if gone != self._gone:
            self._gone, self._is_news = gone, True
            self._wearables.forget(gone)
            self._take(self._rollouts.forget(gone))
        newest = self._rollouts.newest if self._rollouts.was_changed() else self._newest
        if newest is not None and newest.progress.is_under_way and now_s - self._counted_at_s >= self._count_s:
            passed_s = now_s - self._counted_at_s
            self._counted_at_s = now_s
            if passed_s < float("inf"):
                newest = self._rollouts.advance(Passed(seconds=passed_s), newest.progress.number)
        self._take(newest)
        if self._is_news and self._newest is not None:
            self._is_news = False
            self._status = self._wearables.status(self._newest.progress, self._names, self._rules)

    def rounds_over(self, release: str) -> None:
        """All rounds are done, and this is the release of the last one: promote it, once, where no person has to.

        One that was shipped before is not, whatever became of it.
        """
        if self._rules.promote != "last" or not release or self._is_last_promoted:
            return
        self._is_last_promoted = True
        if any(each.progress.release == release for each in self._rollouts.all):
            return
        place = (self._settings, self._base, self._state)
        Job(PROMOTION, lambda _: promote(*place, release), self._inbox)

    def promoted(self, error: BaseException | None) -> None:
        """That came to its end."""
        if error is not None:
            log.error("the last round's release was not promoted: %s; `mekt release promote` tries it again", error)

    def due(self) -> Rollout | None:
        """What is to be announced and was not yet."""
        word = self._word()
        return None if word == self._announced else word

    def announced(self, word: Rollout) -> None:
        """This was announced."""
        self._announced = word

    @property
    def status(self) -> RolloutStatus | None:
        """Where the newest rollout stood when it was looked at last; None before the first."""
        return self._status

    def _word(self) -> Rollout | None:
        if self._newest is None:
            return None
        progress = self._newest.progress
        # A rollout to nobody takes a release back, and nobody fetches anything for it.
        if progress.share > 0 and self._downstream.shipped != self._newest.blob:
            return None
        return Rollout(release=progress.release, blob=self._newest.blob, number=progress.number, share=progress.share)

    def _take(self, newest: Shipped | None) -> None:
        """Go on with this rollout."""
        before, self._newest = self._newest, newest
        if newest is None or newest == before:
            return
        self._is_news = True
        if before is None or before.progress.number != newest.progress.number:
            # Another rollout's hours begin with it.
            self._counted_at_s = self._looked_at_s
            self._names = {each.blob.sha256: each.progress.release for each in self._rollouts.all}
            data = self._rollouts.zip(newest)
            if data is None:
                log.error("the zip of %s is gone: promote it anew", newest.progress.release)
            self._downstream.ship(data)
        told = (newest.progress.number, newest.progress.state, newest.progress.share)
        if before is None or told != (before.progress.number, before.progress.state, before.progress.share):
            log.info("rollout %d: %s", newest.progress.number, text_of(newest.progress, self._rules))


def _is_of_another(fitness: Fitness, blob: BlobRef) -> bool:
    """Whoever says "good" runs what its rollout brought it."""
    return fitness.state == "good" and fitness.running != blob.sha256
