"""The round as a state machine: what the coordinator decides, without clock, socket or disk.

    waiting     -> collecting   enough devices are online: the round opens for them
    collecting  -> distilling   the quorum has delivered, or so many `arrivals` are there, or the deadline passed and
                                somebody has
    collecting  -> collecting   the deadline passed with nothing: the round opens anew for whoever is online
    distilling  -> waiting      the global encoders have learned; the next round follows
    distilling  -> finished     ... or that was the last one

A round whose knowledge is summed in secret (`mekt.masks`) takes three steps more. What comes first are keys:

    collecting  -> sharing      as above, of three devices at least: those whose keys are there deal shares
    sharing     -> masking      all have, or `step_s` has passed and enough have: these send masked words
    masking     -> unmasking    likewise: all that dealt shares tell what unmasks the sum of the words that came
    unmasking   -> distilling   enough have

Whoever is not heard in a step takes no part in the next. A modality of which too few are left is given up, and without
any the round is learned from nobody: what has been told of secrets cannot be told another time.

`advance` maps (state, event, now) to (state, commands). The shell carries the commands out and turns what happens into
events. Times are seconds of one monotonic clock.
"""

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np

from mekt.masks import LEAST_MEMBERS, least_threshold
from mekt.messages import MOST_MEMBERS, Late
from mekt.schema import Bounds, Count, Positive

Phase = Literal["waiting", "collecting", "sharing", "masking", "unmasking", "distilling", "finished"]
# In which devices have something to do.
OPEN: tuple[Phase, ...] = ("collecting", "sharing", "masking", "unmasking")
# What follows on each step of a secure sum.
NEXT: Mapping[Phase, Phase] = dict(itertools.pairwise((*OPEN, "distilling")))
Aggregator = Literal["mean", "trimmed-mean", "median", "geometric-median"]
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

    With `secure` the coordinator learns the sum of the devices' knowledge and nobody's own (`mekt.masks`), of three
    devices or more; each of the steps after the first one lasts `step_s` at most.
    """

    min_devices: Count = 1
    share: Annotated[float, Bounds(above=0, high=1)] = 1.0
    quorum: Annotated[float, Bounds(above=0, high=1)] = 1.0
    deadline_s: Positive = 600.0
    late: Late = "drop"
    arrivals: Count | None = None
    aggregator: Aggregator = "mean"
    quarantine: Quarantine = "off"
    odd_above: Annotated[float, Bounds(above=1, high=1000)] = 1.5
    quarantine_after: Annotated[int, Bounds(low=1, high=1000)] = 1
    quarantine_back: Annotated[int, Bounds(low=1, high=1000)] = 2
    secure: bool = False
    step_s: Positive = 60.0

    @property
    def takes_late(self) -> bool:
        """Whether knowledge that was learned for an earlier round is of use in this one."""
        return self.late == "carry"

    def __post_init__(self) -> None:
        if self.arrivals is not None and self.late != "carry":
            raise ValueError('arrivals: would drop whoever is not among the first; set late = "carry" too')
        if not self.secure:
            return
        if self.aggregator != "mean":
            raise ValueError(f'secure: of a sum there is no {self.aggregator}; set aggregator = "mean"')
        if self.quarantine != "off":
            raise ValueError('secure: nobody sees who disagrees; set quarantine = "off"')
        if self.late != "drop":
            raise ValueError('secure: what is late is in no sum; set late = "drop"')
        if self.min_devices < LEAST_MEMBERS:
            raise ValueError(
                f"min_devices: a secure sum is of {LEAST_MEMBERS} devices or more; set it to that at least"
            )


Modalities = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundState:
    """Where the federation stands. `participants`, `received` and `late` are sorted and belong to the open round.

    `late` are participants whose delivery is from an earlier round, and who may still deliver in this one.

    In a secure sum `participants` and `received` belong to the step. `offered`: of which modalities each device whose
    keys are there has knowledge. `settled`: who has done each step that is over.
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
    offered: Mapping[str, Modalities] = field(default_factory=dict)
    settled: Mapping[Phase, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether devices have something to do."""
        return self.phase in OPEN

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Of a secure sum, by modality: all whose keys it is made of, where enough of them are left."""
        members = self.settled.get("collecting", ())
        groups = _groups({name: self.offered[name] for name in members})
        for step, there in self.settled.items():
            if step != "collecting":
                groups = _left(groups, there)
        return groups

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
class StepTaken:
    """What a device said in a step of a secure sum is validated and durable; its keys are of these modalities."""

    device: str
    round: int
    step: Phase
    modalities: Modalities = ()


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
class SettleStep:
    """A step of a secure sum is over, for good: remember who took it, before anybody is told."""

    round: int
    step: Phase
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilRound:
    """Close the round and learn from what these devices delivered."""

    round: int
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """All rounds are done."""


Event = DeviceOnline | DeviceOffline | KnowledgeStored | StepTaken | Distilled | Tick
Command = OpenRound | SettleStep | DistilRound | Finish


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


def resumed_sum(
    state: RoundState,
    participants: tuple[str, ...],
    offered: Mapping[str, Modalities],
    settled: Mapping[Phase, tuple[str, ...]],
    received: tuple[str, ...],
    rules: RoundRules,
    now_s: float,
) -> tuple[RoundState, tuple[Command, ...]]:
    """The state after a restart in the middle of a secure sum.

    Args:
        state: as at the start, of the round.
        participants: of the round.
        offered: of each device whose keys are there, what it has knowledge of.
        settled: who took each step that is over, in their order.
        received: who has taken the step that is not over yet.
        rules: of the round.
        now_s: the time.
    """
    state = replace(state, phase="collecting", participants=participants, offered=offered, settled=settled)
    if settled:
        state = replace(state, phase=tuple(settled)[-1])
        state = _stepped(state, rules, now_s)
    if state.phase == "distilling":
        return state, (_summed(state),)
    state = replace(state, received=tuple(sorted(received)))
    if not settled:
        state = replace(state, deadline_at_s=now_s + rules.deadline_s)
    state, commands = _collect(state, rules, now_s)
    return state, commands or (() if settled else (OpenRound(round=state.round, participants=participants),))


def advance(state: RoundState, event: Event, rules: RoundRules, now_s: float) -> tuple[RoundState, tuple[Command, ...]]:
    """The state after `event`, and what has to be done. Events that do not fit the state change nothing."""
    match event:
        case DeviceOnline(device=device):
            state = replace(state, online=state.online | {device})
        case DeviceOffline(device=device):
            state = replace(state, online=state.online - {device})
        case KnowledgeStored(device=device, round=number, late=late):
            expected = state.phase == "collecting" and number == state.round and device in state.waiting_for
            expected = expected and not rules.secure
            if expected and late:
                state = replace(state, late=tuple(sorted({*state.late, device})))
            elif expected:
                others = tuple(name for name in state.late if name != device)
                state = replace(state, received=tuple(sorted((*state.received, device))), late=others)
        case StepTaken(device=device, round=number, step=step, modalities=modalities):
            if (number, step) == (state.round, state.phase) and device in state.waiting_for:
                state = replace(state, received=tuple(sorted((*state.received, device))))
                if step == "collecting":
                    state = replace(state, offered={**state.offered, device: modalities})
        case Distilled(round=number):
            if state.phase == "distilling" and number == state.round:
                state = replace(state, round=number + 1, phase="waiting", participants=(), received=(), late=())
                state = replace(state, offered={}, settled={})
        case Tick():
            pass
    match state.phase:
        case "waiting":
            return _open(state, rules, now_s)
        case "distilling" | "finished":
            return state, ()
        case _:
            return _collect(state, rules, now_s)


def _open(state: RoundState, rules: RoundRules, now_s: float) -> tuple[RoundState, tuple[Command, ...]]:
    if state.round >= state.rounds:
        return replace(state, phase="finished"), (Finish(),)
    if len(state.online) < rules.min_devices:
        return state, ()
    chosen = _chosen(state, rules)
    deadline_at_s = now_s + rules.deadline_s
    state = replace(state, phase="collecting", participants=chosen, received=(), late=(), deadline_at_s=deadline_at_s)
    return state, (OpenRound(round=state.round, participants=chosen),)


def _collect(state: RoundState, rules: RoundRules, now_s: float) -> tuple[RoundState, tuple[Command, ...]]:
    overdue = now_s >= state.deadline_at_s
    if rules.secure:
        return _sum(state, rules, now_s, overdue)
    enough = _is_quorum(state, rules)
    if rules.arrivals is not None:
        enough = enough or len(state.delivered) >= rules.arrivals
    if enough or (overdue and state.delivered):
        return _close(state)
    if overdue:
        return _open(replace(state, phase="waiting", participants=()), rules, now_s)
    return state, ()


def _is_quorum(state: RoundState, rules: RoundRules) -> bool:
    return len(state.received) >= math.ceil(rules.quorum * len(state.participants) - 1e-9)


def _close(state: RoundState) -> tuple[RoundState, tuple[Command, ...]]:
    return replace(state, phase="distilling"), (DistilRound(round=state.round, devices=state.delivered),)


def _sum(state: RoundState, rules: RoundRules, now_s: float, overdue: bool) -> tuple[RoundState, tuple[Command, ...]]:
    """The step of a secure sum that has been taken, if it has."""
    after = replace(state, settled={**state.settled, state.phase: state.received})
    everybody = not state.waiting_for
    if state.phase == "collecting":
        if overdue and not state.received:
            return _open(replace(state, phase="waiting", participants=()), rules, now_s)
        enough = _is_quorum(state, rules) and bool(after.groups)
    else:
        # Any so many shares unmask the sum, and the same comes of it.
        enough = state.phase == "unmasking" and after.groups == state.groups
    if not (everybody or enough or overdue):
        return state, ()
    settle = SettleStep(round=state.round, step=state.phase, devices=state.received)
    after = _stepped(after, rules, now_s)
    return after, ((settle, _summed(after)) if after.phase == "distilling" else (settle,))


def _stepped(state: RoundState, rules: RoundRules, now_s: float) -> RoundState:
    """The state at the beginning of the step behind one that is settled, or of learning when too few are left."""
    step = NEXT[state.phase] if state.groups else "distilling"
    # Those that took the step before; of those that dealt shares, all can help to unmask.
    of: Mapping[Phase, Phase] = {"unmasking": "sharing", "distilling": "masking"}
    there = _of_groups(state, of.get(step, state.phase))
    received = there if step == "distilling" else ()
    return replace(state, phase=step, participants=there, received=received, deadline_at_s=now_s + rules.step_s)


def _summed(state: RoundState) -> DistilRound:
    """What is learned from: the words of whoever sent them, of modalities whose sum can be unmasked."""
    return DistilRound(round=state.round, devices=_of_groups(state, "masking"))


def _of_groups(state: RoundState, step: Phase) -> tuple[str, ...]:
    """Who took a step, and is of a modality of which enough are left."""
    groups = state.groups.values()
    return tuple(name for name in state.settled.get(step, ()) if any(name in members for members in groups))


def _groups(offered: Mapping[str, Modalities]) -> dict[str, tuple[str, ...]]:
    names = sorted({name for each in offered.values() for name in each})
    groups = {name: tuple(sorted(who for who, each in offered.items() if name in each)) for name in names}
    return {name: members for name, members in groups.items() if len(members) >= LEAST_MEMBERS}


def _left(groups: Mapping[str, tuple[str, ...]], there: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The groups of which enough are still there."""
    return {
        name: members
        for name, members in groups.items()
        if len(set(members) & set(there)) >= least_threshold(len(members))
    }


def _chosen(state: RoundState, rules: RoundRules) -> tuple[str, ...]:
    """A random share of the devices online, by the seed and the round alone."""
    online = sorted(state.online)
    count = max(1, math.ceil(rules.share * len(online) - 1e-9))
    if rules.secure:
        count = min(MOST_MEMBERS, max(LEAST_MEMBERS, count))
    picked = np.random.default_rng((state.seed, state.round)).permutation(len(online))[:count]
    return tuple(online[index] for index in sorted(picked.tolist()))
