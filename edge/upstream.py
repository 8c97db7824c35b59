"""Knowledge on offer to the coordinator: a round's own, and what came too late for an earlier one."""

from collections.abc import Mapping
from dataclasses import replace

from edge.lessons import Late
from edge.memory import Memory
from mekt.blobs import Serving, blob_ref
from mekt.messages import Chunk, Offer, Want

OFFER_S = 5.0


class Upstream:
    """What this device offers, and serves to the coordinator. Times are monotonic seconds."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._serving = Serving()
        # What was learned for an earlier round, while it is on offer to this one; a restart computes it again.
        self._late_offer: Offer | None = None
        self._late: dict[bytes, bytes] = {}
        # While knowledge is summed in secret, what is served by hash: masked words, and no knowledge as it is.
        self.masked: Mapping[bytes, bytes] | None = None
        self._offered_at_s = 0.0

    def offer(self, number: int, now_s: float) -> Offer | None:
        """What to offer for a round now; None when its knowledge has been lost."""
        self._offered_at_s = now_s
        return self._memory.offer(number)

    def late_offer(self, now_s: float) -> Offer | None:
        """What to offer now of an earlier round, if anything."""
        self._offered_at_s = now_s
        return self._late_offer

    def is_due(self, now_s: float) -> bool:
        """Whether the last offer has waited long enough for its receipt."""
        return now_s - self._offered_at_s >= OFFER_S

    def make_ready(self, late: Late) -> bool:
        """Take knowledge of the round that was learned last for an offer to a later one; False when there is none."""
        trained = self._memory.progress.trained
        former = self._memory.offer(trained)
        if former is None or late.round <= trained:
            return False
        refs = {name: blob_ref(data) for name, data in late.knowledge.items()}
        self._late = {refs[name].sha256: data for name, data in late.knowledge.items()}
        self._late_offer = replace(former, knowledge=refs, age=late.round - trained)
        return True

    def forget_late(self) -> None:
        """Offer nothing of an earlier round any more."""
        self._late, self._late_offer = {}, None

    def has_lost(self, number: int) -> bool:
        """Whether what a round gave is not here, or not whole."""
        return self._memory.offer(number) is None

    def chunks(self, want: Want, leaving: int) -> tuple[Chunk, ...] | None:
        """What to send now of what the coordinator wants; None when that is not on offer.

        `leaving`: how many chunks are still on their way out of this device.
        """
        if self.masked is not None:
            data = self.masked.get(want.sha256)
        else:
            data = self._late.get(want.sha256) or self._memory.knowledge(want.sha256)
        return None if data is None else self._serving.chunks("coordinator", data, want, leaving)
