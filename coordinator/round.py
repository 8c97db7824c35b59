"""The round as a state machine: what the coordinator decides, without clock, socket or disk.

    waiting     -> collecting   enough devices are online: the round opens for them
    collecting  -> distilling   the quorum has delivered, or the deadline passed and somebody has
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

from mekt.schema import Bounds, Count, Positive

Phase = Literal["waiting", "collecting", "distilling", "finished"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundRules:
    """When a round opens and when it ends.

    `min_devices` must be online for a round to open; `share` of those online take part; the round ends once `quorum`
    of the participants have delivered, or after `deadline_s` with what is there.
    """

    min_devices: Count = 1
    share: Annotated[float, Bounds(above=0, high=1)] = 1.0
    quorum: Annotated[float, Bounds(above=0, high=1)] = 1.0
    deadline_s: Positive = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundState:
    """Where the federation stands. `participants` and `received` are sorted and belong to the open round."""

    phase: Phase = "waiting"
    round: int = 0
    rounds: int
    seed: int
    online: frozenset[str] = frozenset()
    participants: tuple[str, ...] = ()
    received: tuple[str, ...] = ()
    deadline_at_s: float = math.inf

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
    """A device's knowledge of a round is validated and durable."""

    device: str
    round: int


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
    state: RoundState, participants: tuple[str, ...], received: tuple[str, ...], rules: RoundRules, now_s: float
) -> tuple[RoundState, tuple[Command, ...]]:
    """The state after a restart in the middle of a round that had these participants and stored knowledge."""
    state = replace(
        state,
        phase="collecting",
        participants=participants,
        received=tuple(sorted(received)),
        deadline_at_s=now_s + rules.deadline_s,
    )
    opened = OpenRound(round=state.round, participants=participants)
    state, commands = _collect(state, rules, now_s)
    return state, commands or (opened,)


def advance(state: RoundState, event: Event, rules: RoundRules, now_s: float) -> tuple[RoundState, tuple[Command, ...]]:
    """The state after `event`, and what has to be done. Events that do not fit the state change nothing."""
    match event:
        case DeviceOnline(device=device):
            state = replace(state, online=state.online | {device})
        case DeviceOffline(device=device):
            state = replace(state, online=state.online - {device})
        case KnowledgeStored(device=device, round=number):
            expected = state.phase == "collecting" and number == state.round and device in state.waiting_for
            if expected:
                state = replace(state, received=tuple(sorted((*state.received, device))))
        case Distilled(round=number):
            if state.phase == "distilling" and number == state.round:
                state = replace(state, round=number + 1, phase="waiting", participants=(), received=())
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
    state = replace(state, phase="collecting", participants=chosen, received=(), deadline_at_s=now_s + rules.deadline_s)
    return state, (OpenRound(round=state.round, participants=chosen),)


def _collect(state: RoundState, rules: RoundRules, now_s: float) -> tuple[RoundState, tuple[Command, ...]]:
    enough = math.ceil(rules.quorum * len(state.participants) - 1e-9)
    overdue = now_s >= state.deadline_at_s
    if len(state.received) >= enough or (overdue and state.received):
        return replace(state, phase="distilling"), (DistilRound(round=state.round, devices=state.received),)
    if overdue:
        state, commands = _open(replace(state, phase="waiting", participants=()), rules, now_s)
        return state, commands
    return state, ()


def _chosen(state: RoundState, share: float) -> tuple[str, ...]:
    """A random share of the devices online, by the seed and the round alone."""
    online = sorted(state.online)
    count = max(1, math.ceil(share * len(online) - 1e-9))
    picked = np.random.default_rng((state.seed, state.round)).permutation(len(online))[:count]
    return tuple(online[index] for index in sorted(picked.tolist()))
