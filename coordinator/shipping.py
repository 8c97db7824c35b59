"""The coordinator's side of rollouts at work: announced, their zips served, wearables' words taken in.

What a person's command changes on disk is seen within `LOOK_S`.
"""

import logging
from pathlib import Path

from coordinator.downstream import Downstream
from coordinator.rollout import HOUR_S, Heard, Passed, RolloutRules, text_of
from coordinator.rollouts import Rollouts, Shipped, Sign
from coordinator.wearables import Wearables
from mekt.messages import Fitness, Rollout, RolloutStatus

log = logging.getLogger(__name__)

LOOK_S = 1.0
# How often the time that has passed is kept: so much of it a crash takes away, and so many of a rollout's hours.
COUNT_S, COUNTS = 60.0, 20


class Shipping:
    """The newest rollout of a federation, and the wearables. One thread uses it. Times are monotonic seconds."""

    def __init__(
        self, folder: Path, federation: str, rules: RolloutRules, downstream: Downstream, sign: Sign | None
    ) -> None:
        """Take up what is on disk in the coordinator's state folder; see `coordinator.rollouts`.

        Raises:
            StateError: when it cannot be read or written.
        """
        self._rules, self._downstream = rules, downstream
        self._rollouts = Rollouts(folder, federation, rules, sign)
        self._wearables = Wearables()
        self._count_s = min(COUNT_S, rules.hours * HOUR_S / COUNTS)
        self._looked_at_s = self._counted_at_s = float("-inf")
        self._newest: Shipped | None = None
        self._names: dict[bytes, str] = {}
        self._announced: Rollout | None = None

    def close(self) -> None:
        """Let the files go."""
        self._rollouts.close()

    def __contains__(self, device: str) -> bool:
        """Whether this is a wearable that has said so."""
        return device in self._wearables

    def forget(self) -> None:
        """Announce anew: the broker may have forgotten what was said."""
        self._announced = None

    def heard(self, device: str, fitness: Fitness) -> None:
        """A wearable has said how it is.

        Raises:
            StateError: when that cannot be kept.
            WireError: when there are too many wearables.
        """
        self._wearables.told(device, fitness)
        if self._newest is None or fitness.number != self._newest.progress.number:
            return
        event = Heard(device=device, state=fitness.state, why=fitness.why)
        self._take(self._rollouts.advance(event, fitness.number))

    def on_time(self, now_s: float) -> None:
        """See what a person has changed, and let time pass.

        Raises:
            StateError: when the state cannot be read or written.
        """
        if now_s - self._looked_at_s < LOOK_S:
            return
        self._looked_at_s = now_s
        newest = self._rollouts.newest
        if newest is not None and newest.progress.is_under_way and now_s - self._counted_at_s >= self._count_s:
            passed_s = now_s - self._counted_at_s
            self._counted_at_s = now_s
            if passed_s < float("inf"):
                newest = self._rollouts.advance(Passed(seconds=passed_s), newest.progress.number)
        self._take(newest)

    def due(self) -> Rollout | None:
        """What is to be announced and was not yet."""
        word = self._word()
        return None if word == self._announced else word

    def announced(self, word: Rollout) -> None:
        """This was announced."""
        self._announced = word

    def status(self) -> RolloutStatus | None:
        """Where the newest rollout stands; None before the first."""
        if self._newest is None:
            return None
        return self._wearables.status(self._newest.progress, self._names, self._rules)

    def _word(self) -> Rollout | None:
        if self._newest is None or self._downstream.shipped != self._newest.blob:
            return None
        progress = self._newest.progress
        return Rollout(release=progress.release, blob=self._newest.blob, number=progress.number, share=progress.share)

    def _take(self, newest: Shipped | None) -> None:
        """Go on with this rollout."""
        before, self._newest = self._newest, newest
        if newest is None or newest == before:
            return
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
