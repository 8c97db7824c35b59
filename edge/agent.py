"""The agent as a state machine: what a device does in a round, without clock, socket, disk or torch.

    idle      -> fetching   a round opened that names this device, and it has not delivered that round yet
    fetching  -> sensing    proxy set and global knowledge are there, but too few private windows are
    fetching  -> training   ... and enough windows are
    sensing   -> training   enough windows have been sensed
    training  -> training   what was learned in an earlier round and came too late is offered to this one meanwhile
    training  -> sending    the knowledge is durable on this device; it is offered until a receipt comes
    training  -> idle       local learning failed; the device sits this round out
    sending   -> idle       the coordinator's receipt says that it is durable there

A round that closes, or a newer one, ends all of these but training, which runs to its end: its result is kept.
`advance` maps (state, event) to (state, commands); events that do not fit the state change nothing.
"""

from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["idle", "fetching", "sensing", "training", "sending"]
NEVER = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentState:
    """Where the device stands. `open_round` is the announced round that it takes part in, or NEVER.

    `trained` and `delivered` are the last rounds whose knowledge is durable here, and there; `kept` are all rounds
    whose knowledge is in the outbox. `late` says whether the open round takes what an earlier one did not wait for,
    `offers_late` whether such knowledge is on offer.
    """

    phase: Phase = "idle"
    open_round: int = NEVER
    round: int = NEVER
    trained: int = NEVER
    delivered: int = NEVER
    kept: frozenset[int] = frozenset()
    has_windows: bool = False
    late: bool = False
    offers_late: bool = False

    @property
    def is_offering(self) -> bool:
        """Whether something waits for the coordinator's receipt."""
        return self.phase == "sending" or self.offers_late

    @property
    def latest(self) -> int:
        """The round that the device is at, or else the last that it has delivered, or NEVER."""
        return self.delivered if self.round == NEVER else self.round

    def awaits(self, number: int, late: bool) -> bool:
        """Whether a receipt of this round is an answer to what is on offer, late knowledge or the round's own."""
        return number == self.round and (self.offers_late if late else self.phase == "sending")


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundOpened:
    """The coordinator announced an open round; `invited`: it names this device; `late`: it takes late knowledge."""

    round: int
    invited: bool
    late: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundClosed:
    """No round is open any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """Proxy set and global knowledge of a round are on this device."""

    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowsReady:
    """Enough private windows have been sensed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LateReady:
    """What this device had learned before it began to learn for this round can be offered to it."""

    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A round's local learning is over; its model and knowledge are durable."""

    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingFailed:
    """A round's local learning ended without a result."""

    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipted:
    """The coordinator answered an offer, of late knowledge or not: it is durable there, or refused for good."""

    round: int
    late: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class KnowledgeLost:
    """A round's knowledge is not in the outbox any more, and cannot be computed again."""

    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferDue:
    """The link came back, or no receipt came for a while."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartFetch:
    """Get the proxy set and the global knowledge of this round."""

    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StartTraining:
    """Learn locally for this round, off the network thread.

    With `late` what was learned before is made ready first, to be offered while learning goes on.
    """

    round: int
    late: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class SendLateOffer:
    """Offer what was learned for an earlier round to this one."""

    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SendOffer:
    """Offer the stored knowledge of this round to the coordinator."""

    round: int


Event = (
    RoundOpened
    | RoundClosed
    | Fetched
    | WindowsReady
    | LateReady
    | Trained
    | TrainingFailed
    | Receipted
    | KnowledgeLost
    | OfferDue
)
Command = StartFetch | StartTraining | SendOffer | SendLateOffer


def advance(state: AgentState, event: Event) -> tuple[AgentState, tuple[Command, ...]]:
    """The state after `event`, and what has to be done."""
    match event:
        case RoundOpened(round=number, invited=invited, late=late):
            # An announcement that comes anew may be that of a coordinator that lost what this device had delivered.
            again = invited and number == state.delivered
            state = replace(
                state,
                open_round=number if invited else NEVER,
                late=late,
                delivered=NEVER if again else state.delivered,
            )
            if state.phase == "sending" and state.round == state.open_round:
                # Or of one that was away when this device offered.
                return state, (SendOffer(round=number),)
            return _pursue(state)
        case RoundClosed():
            return _pursue(replace(state, open_round=NEVER))
        case Fetched(round=number):
            if state.phase == "fetching" and number == state.round:
                return _train(state)
        case WindowsReady():
            state = replace(state, has_windows=True)
            if state.phase == "sensing":
                return _train(state)
        case LateReady(round=number):
            if state.phase == "training" and number == state.round == state.open_round:
                return replace(state, offers_late=True), (SendLateOffer(round=number),)
        case Trained(round=number):
            if state.phase == "training" and number == state.round:
                kept = state.kept | {number}
                return _pursue(replace(state, phase="idle", trained=number, kept=kept, offers_late=False))
        case TrainingFailed(round=number):
            if state.phase == "training" and number == state.round:
                newer = NEVER if state.open_round == number else state.open_round
                return _pursue(replace(state, phase="idle", open_round=newer, offers_late=False))
        case Receipted(round=number, late=late):
            if late and state.offers_late and number == state.round:
                # What is durable there is what was learned last.
                return replace(state, offers_late=False, delivered=state.trained), ()
            if not late and state.phase == "sending" and number == state.round:
                return _pursue(replace(state, phase="idle", delivered=number))
        case KnowledgeLost(round=number):
            state = replace(state, kept=state.kept - {number})
            if state.phase == "sending" and number == state.round:
                return _pursue(replace(state, phase="idle"))
        case OfferDue():
            if state.phase == "sending":
                return state, (SendOffer(round=state.round),)
            if state.offers_late and state.round == state.open_round:
                return state, (SendLateOffer(round=state.round),)
    return state, ()


def _pursue(state: AgentState) -> tuple[AgentState, tuple[Command, ...]]:
    """Turn to the open round, unless local learning is under way or it is already in hand."""
    number = state.open_round
    in_hand = state.phase != "idle" and state.round == number
    if state.phase == "training" or in_hand:
        return state, ()
    if number in (NEVER, state.delivered):
        return replace(state, phase="idle", round=NEVER), ()
    if number in state.kept:
        return replace(state, phase="sending", round=number), (SendOffer(round=number),)
    return replace(state, phase="fetching", round=number), (StartFetch(round=number),)


def _train(state: AgentState) -> tuple[AgentState, tuple[Command, ...]]:
    if not state.has_windows:
        return replace(state, phase="sensing"), ()
    late = state.late and NEVER < state.trained < state.round and state.trained != state.delivered
    return replace(state, phase="training"), (StartTraining(round=state.round, late=late),)
