"""The round as a state machine: what the coordinator decides, without clock, socket or disk.

    waiting     -> collecting   enough devices are online: the round opens for them
    collecting  -> distilling   the quorum has delivered, or so many `arrivals` are there, or the deadline passed and
                                somebody has
    collecting  -> collecting   the deadline passed with nothing: the round opens anew for whoever is online
    distilling  -> waiting      the global encoders have learned; the next round follows
    distilling  -> finished     ... or that was the last one

`advance` maps (state, event, now) to (state, commands). The shell carries the commands out and turns what happens into
events. Times are seconds of one monotonic clock.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from coordinator.aggregate import Aggregator
from coordinator.signs import FAR
from mekt.messages import Late
from mekt.schema import Bounds, Count, Positive

Phase = Literal["waiting", "collecting", "distilling", "finished"]
Quarantine = Literal["off", "odd"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundRules:
    """When a round opens and when it ends.

    `min_devices` must be online for a round to open; `share` of those online take part; the round ends once `quorum`
    of the participants have delivered, or after `deadline_s` with what is there. What came too late for its round is
    dropped, or carried over into the next one, where it counts less. With `arrivals` a round ends after so many
    deliveries, late ones among them, and nobody is waited for: buffered asynchronous rounds (arXiv 2106.06639).

    `aggregator` makes one knowledge of many (`coordinator.aggregate`). With `quarantine` "odd" a device is left out
    once it was odd in `quarantine_after` rounds in a row, until it has agreed in `quarantine_back`; one that disagrees
    with the fleet more than `odd_above` times as much as is usual is odd (`coordinator.quarantine`).
    """

    min_devices: Count = 1
    share: Annotated[float, Bounds(above=0, high=1)] = 1.0
    quorum: Annotated[float, Bounds(above=0, high=1)] = 1.0
    deadline_s: Positive = 600.0
    late: Late = "drop"
    arrivals: Count | None = None
    aggregator: Aggregator = "mean"
    quarantine: Quarantine = "off"
    odd_above: Annotated[float, Bounds(above=1, high=1000)] = FAR
    quarantine_after: Annotated[int, Bounds(low=1, high=1000)] = 1
    quarantine_back: Annotated[int, Bounds(low=1, high=1000)] = 2

    @property
    def takes_late(self) -> bool:
        """Whether knowledge that was learned for an earlier round is of use in this one."""
        return self.late == "carry"

    def __post_init__(self) -> None:
        if self.arrivals is not None and self.late != "carry":
            raise ValueError('arrivals: would drop whoever is not among the first; set late = "carry" too')


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundState:
    """Where the federation stands. `participants`, `received` and `late` are sorted and belong to the open round.

    `late` are participants whose delivery is from an earlier round, and who may still deliver in this one.
    """

    phase: Phase = "waiting"
    round: int = 0
    rounds: int
    seed: int
    online: frozenset[str] = frozenset()
    participants: tuple[str, ...] = ()
    received: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    deadline_at_s: float = math.inf

    @property
    def delivered(self) -> tuple[str, ...]:
        """Everybody of whom something is there for the round."""
        return tuple(sorted({*self.received, *self.late}))

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Participants that have not delivered yet."""
        return tuple(device for device in self.participants if device not in self.received)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceOnline:
    """A device said that it is there."""

    device: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceOffline:
    """A device left, or its last will said so."""

    device: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KnowledgeStored:
    """A device's knowledge of a round is validated and durable; `late`: it was learned for an earlier one."""

    device: str
    round: int
    late: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Distilled:
    """The global encoders have learned from a round's knowledge, and are durable."""

    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRound:
    """Announce the round to its participants."""

    round: int
    participants: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilRound:
    """Close the round and learn from what these devices delivered."""

    round: int
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """All rounds are done."""


Event = DeviceOnline | DeviceOffline | KnowledgeStored | Distilled | Tick
Command = OpenRound | DistilRound | Finish


def resumed(
    state: RoundState,
    participants: tuple[str, ...],
    received: tuple[str, ...],
    rules: RoundRules,
    now_s: float,
    late: tuple[str, ...] = (),
) -> tuple[RoundState, tuple[Command, ...]]:
    """The state after a restart in the middle of a round that had these participants and stored knowledge."""
    state = replace(
        state,
        phase="collecting",
        participants=participants,
        received=tuple(sorted(received)),
        late=tuple(sorted(late)),
        deadline_at_s=now_s + rules.deadline_s,
    )
    opened = OpenRound(round=state.round, participants=participants)
    if late and state.delivered == participants:
        # It may have been closed with these before the restart; nobody else is asked.
        return _close(state)
    state, commands = _collect(state, rules, now_s)
    return state, commands or (opened,)


def advance(state: RoundState, event: Event, rules: RoundRules, now_s: float) -> tuple[RoundState, tuple[Command, ...]]:
    """The state after `event`, and what has to be done. Events that do not fit the state change nothing."""
    match event:
        case DeviceOnline(device=device):
            state = replace(state, online=state.online | {device})
        case DeviceOffline(device=device):
            state = replace(state, online=state.online - {device})
        case KnowledgeStored(device=device, round=number, late=late):
            expected = state.phase == "collecting" and number == state.round and device in state.waiting_for
            if expected and late:
                state = replace(state, late=tuple(sorted({*state.late, device})))
            elif expected:
                others = tuple(name for name in state.late if name != device)
                state = replace(state, received=tuple(sorted((*state.received, device))), late=others)
        case Distilled(round=number):
            if state.phase == "distilling" and number == state.round:
                state = replace(state, round=number + 1, phase="waiting", participants=(), received=(), late=())
        case Tick():
            pass
    match state.phase:
        case "waiting":
            return _open(state, rules, now_s)
        case "collecting":
            return _collect(state, rules, now_s)
        case "distilling" | "finished":
            return state, ()


def _open(state: RoundState, rules: RoundRules, now_s: float) -> tuple[RoundState, tuple[Command, ...]]:
    if state.round >= state.rounds:
        return replace(state, phase="finished"), (Finish(),)
    if len(state.online) < rules.min_devices:
        return state, ()
    chosen = _chosen(state, rules.share)
    deadline_at_s = now_s + rules.deadline_s
    state = replace(state, phase="collecting", participants=chosen, received=(), late=(), deadline_at_s=deadline_at_s)
    return state, (OpenRound(round=state.round, participants=chosen),)


def _collect(state: RoundState, rules: RoundRules, now_s: float) -> tuple[RoundState, tuple[Command, ...]]:
    enough = len(state.received) >= math.ceil(rules.quorum * len(state.participants) - 1e-9)
    if rules.arrivals is not None:
        enough = enough or len(state.delivered) >= rules.arrivals
    overdue = now_s >= state.deadline_at_s
    if enough or (overdue and state.delivered):
        return _close(state)
    if overdue:
        state, commands = _open(replace(state, phase="waiting", participants=()), rules, now_s)
        return state, commands
    return state, ()


def _close(state: RoundState) -> tuple[RoundState, tuple[Command, ...]]:
    return replace(state, phase="distilling"), (DistilRound(round=state.round, devices=state.delivered),)


def _chosen(state: RoundState, share: float) -> tuple[str, ...]:
    """A random share of the devices online, by the seed and the round alone."""
    online = sorted(state.online)
    count = max(1, math.ceil(share * len(online) - 1e-9))
    picked = np.random.default_rng((state.seed, state.round)).permutation(len(online))[:count]
    return tuple(online[index] for index in sorted(picked.tolist()))
