"""Where a coordinator that was started again takes up the open round, as its ledger has it."""

import logging
from collections.abc import Collection

from coordinator.ledger import Ledger
from coordinator.round import NEXT, Command, RoundRules, RoundState, resumed, resumed_sum
from coordinator.standing import listed
from coordinator.summing import Summing, settled_of
from mekt.files import BlobStore

log = logging.getLogger(__name__)


def taken_up(
    state: RoundState, rules: RoundRules, ledger: Ledger, blobs: BlobStore, summing: Summing | None, now_s: float
) -> tuple[RoundState, tuple[Command, ...]]:
    """The state as it is to go on, and what is to be done; `state` as it is where no round is open.

    What was delivered, and is on the disk no more, is asked for again. `summing` where the round is a secure sum.

    Raises:
        StateError: when the ledger or the blobs cannot be read or written.
    """
    number = state.round
    participants = ledger.participants(number)
    if participants is None or number >= state.rounds:
        return state, ()
    lost = [
        delivery.device
        for delivery in ledger.deliveries(number)
        if any(blobs.get(ref) is None for ref in delivery.knowledge.values())
    ]
    if summing is not None:
        return _sum_taken_up(state, rules, ledger, summing, participants, lost, now_s)
    for device in lost:
        ledger.withdraw(number, device)
    deliveries = ledger.deliveries(number)
    received = tuple(delivery.device for delivery in deliveries if not delivery.age)
    late = tuple(delivery.device for delivery in deliveries if delivery.age)
    log.info("round %d of %d goes on; delivered so far: %s", number + 1, state.rounds, listed(received))
    return resumed(state, participants, received, rules, now_s, late)


def _sum_taken_up(
    state: RoundState,
    rules: RoundRules,
    ledger: Ledger,
    summing: Summing,
    participants: tuple[str, ...],
    lost: Collection[str],
    now_s: float,
) -> tuple[RoundState, tuple[Command, ...]]:
    """The same of a secure sum. `lost`: whose words were lost from the disk since."""
    number = state.round
    settled = settled_of(ledger.settled(number))
    if "masking" not in settled:
        for device in lost:
            ledger.withdraw(number, device)
    step = NEXT[tuple(settled)[-1]] if settled else "collecting"
    takers = () if step == "distilling" else summing.takers(number, step)
    log.info("round %d of %d goes on with its secure sum", number + 1, state.rounds)
    return resumed_sum(state, participants, summing.offered(number), settled, takers, rules, now_s)
