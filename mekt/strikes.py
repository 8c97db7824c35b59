"""When to kill whom, drawn from a seed; and how far a federation has come, as its own messages tell. Pure.

A moment is (round, index of a step): moments are in the order in which a federation that nobody disturbs meets them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Generic, Literal, TypeVar, get_args

import numpy as np

from mekt.messages import (
    Answer,
    Chunk,
    Envelope,
    Fitness,
    Keys,
    Offer,
    Presence,
    Receipt,
    Renewal,
    Request,
    Rollout,
    RoundOpen,
    Shares,
    Status,
    Unmasking,
    Want,
)
from mekt.topics import Direction

# The first one is what lies between two rounds, and before the first. "distilling" also is classifying.
Step = Literal["opening", "fetching", "sensing", "training", "sending", "distilling"]
STEPS: tuple[Step, ...] = get_args(Step)
COORDINATOR, BROKER = "coordinator", "broker"
# What is drawn from, in turns: every step and everybody gets their share, and the one that is several a larger one.
STEP_TURNS: tuple[Step, ...] = (*STEPS, "distilling")
# What the coordinator does while a round counts as distilling, in this order.
Closing = Literal["distilling", "classifying", "reporting"]
CLOSINGS: tuple[Closing, ...] = get_args(Closing)
VICTIM_TURNS = (COORDINATOR, COORDINATOR, "device", BROKER, BROKER)
# How many strikes hit two at a time, and how many hit the first one anew while it starts.
TWO, AGAIN = 0.2, 0.2
LONGEST_PAUSE_S = 2.0
# How long a step is taken to last when nobody has seen it.
UNSEEN_S = 0.5

Moment = tuple[int, int]
Word = TypeVar("Word")


@dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """Kills at one moment: when `witness`, a device, is at `step`, in `round` or later; `share` of its length later.

    One at the step "distilling" comes when the coordinator is at `closing`, at once unless that is the first of them.

    `victims` stay away for `pause_s`. With `again`, the first one is killed anew at that share of its start-up.
    """

    round: int
    step: Step
    witness: str
    victims: tuple[str, ...]
    share: float
    pause_s: float
    again: float | None = None
    closing: Closing = "distilling"

    @property
    def moment(self) -> Moment:
        """When it is due at the earliest."""
        return self.round, STEPS.index(self.step)

    def is_due(self, moment: Moment, rounds: int) -> bool:
        """True when its witness is at its step. What was missed twice, or in the last round, comes at any step."""
        number, step = moment
        overdue = (self.round + 1, STEPS.index(self.step))
        met = step == STEPS.index(self.step) or number >= rounds - 1
        return moment > overdue or (moment >= self.moment and met)

    @property
    def kills(self) -> int:
        """How often it kills."""
        return len(self.victims) + (self.again is not None)


def draw_strikes(kills: int, *, rounds: int, devices: Sequence[str], seed: int) -> tuple[Strike, ...]:
    """Exactly so many kills, spread evenly over the rounds but the last, in order of their moments."""
    rng = np.random.default_rng((seed, kills, rounds))
    steps, victims, closings = _Turns(rng, STEP_TURNS), _Turns(rng, VICTIM_TURNS), _Turns(rng, CLOSINGS)
    groups: list[list[Strike]] = []
    left = kills
    while left > 0:
        # The first one comes before the first round.
        step, witness = steps.next() if groups else "opening", str(rng.choice(devices))
        group = []
        if step == "sensing" and left > 1:
            # A device senses after its start, and not again in later rounds.
            group.append(_strike(rng, "fetching", witness, (witness,), most=1))
        first = victims.next()
        hit = [witness if first == "device" else first]
        others = [each for each in (COORDINATOR, BROKER, *devices) if each not in hit]
        if left - len(group) > 1 and rng.random() < TWO:
            hit.append(str(rng.choice(others)))
        strike = _strike(rng, step, witness, tuple(hit), most=left - len(group))
        group.append(replace(strike, closing=closings.next()) if step == "distilling" else strike)
        left -= sum(each.kills for each in group)
        groups.append(group)
    # The last round is for what was missed.
    used = max(1, rounds - 1)
    placed = [replace(each, round=index * used // len(groups)) for index, group in enumerate(groups) for each in group]
    return tuple(sorted(placed, key=lambda each: each.moment))


def _strike(rng: np.random.Generator, step: Step, witness: str, victims: tuple[str, ...], most: int) -> Strike:
    again = float(rng.random()) if most > len(victims) and rng.random() < AGAIN else None
    pause_s = float(rng.uniform(0, LONGEST_PAUSE_S))
    return Strike(
        round=0, step=step, witness=witness, victims=victims, share=float(rng.random()), pause_s=pause_s, again=again
    )


class _Turns(Generic[Word]):
    """Draws without putting back, and from all of them again when none is left."""

    def __init__(self, rng: np.random.Generator, words: Sequence[Word]) -> None:
        self._rng, self._words = rng, words
        self._left: list[Word] = []

    def next(self) -> Word:
        self._left = self._left or [self._words[index] for index in self._rng.permutation(len(self._words))]
        return self._left.pop()


@dataclass(slots=True)
class Standing:
    """How far a federation has come, as far as it was heard; times are seconds of one clock.

    `start_up_s`: until the first round opened. `lengths_s`: of steps that were seen to begin and to end.
    """

    began_s: float
    start_up_s: float = 0.0
    round: int = 0
    step: Step = "opening"
    is_finished: bool = False
    waiting_for: frozenset[str] = frozenset()
    devices: dict[str, tuple[int, Step]] = field(default_factory=dict)
    lengths_s: dict[Step, list[float]] = field(default_factory=lambda: defaultdict(list))
    _since_s: dict[str, tuple[Step, float]] = field(default_factory=dict)

    def take(self, envelope: Envelope, now_s: float) -> None:
        """Learn from a message."""
        match envelope.body:
            case RoundOpen(state=state):
                if state == "open":
                    self.start_up_s = self.start_up_s or now_s - self.began_s
                self._on_round(envelope.round, state == "finished")
            case Status(phase=phase):
                self._on_round(envelope.round, phase == "finished")
                self.step = "distilling" if phase == "distilling" else "opening"
                self.waiting_for = frozenset(envelope.body.waiting_for)
                self._time("", "distilling" if phase == "distilling" else None, now_s)
            case Presence(state="online", activity=activity):
                step = None if activity == "idle" else activity
                if step is not None:
                    self.devices[envelope.device] = (envelope.round, step)
                self._time(envelope.device, step, now_s)
            case _:
                pass

    def moment(self, witness: str) -> Moment:
        """Where this device is, or the coordinator when it is farther."""
        number, step = self.devices.get(witness, (0, "opening"))
        return max((self.round, STEPS.index(self.step)), (number, STEPS.index(step)))

    def forget(self, device: str) -> None:
        """A device was killed: what it was at counts no more."""
        self.devices.pop(device, None)
        self._since_s.pop(device, None)

    def length_s(self, step: Step) -> float:
        """How long a step lasts, on average."""
        seen = self.lengths_s.get(step)
        return fmean(seen) if seen else UNSEEN_S

    def _on_round(self, number: int, is_finished: bool) -> None:
        if number != self.round:
            self.round, self.step = number, "opening"
        self.is_finished = is_finished

    def _time(self, who: str, step: Step | None, now_s: float) -> None:
        """Take the time of the step that ends when another one begins, or none."""
        known, since_s = self._since_s.get(who, (None, now_s))
        if known == step:
            return
        if known is not None:
            self.lengths_s[known].append(now_s - since_s)
        if step is None:
            del self._since_s[who]
        else:
            self._since_s[who] = (step, now_s)


def speaker_of(envelope: Envelope, direction: Direction) -> str:
    """Who sent a message; "" for a farewell, which may be a last will."""
    if direction != "up":
        return COORDINATOR
    match envelope.body:
        case Presence(state="offline"):
            return ""
        case _:
            return envelope.device


def is_work(envelope: Envelope) -> bool:
    """True for a message that carries a round on, or says that somebody is at work on it or that all are over."""
    match envelope.body:
        case Offer() | Want() | Chunk() | Receipt() | Keys() | Shares() | Unmasking():
            return True
        case Presence(state=state, activity=activity):
            return state == "online" and activity != "idle"
        case Status(phase=phase):
            return phase in ("distilling", "finished")
        case RoundOpen(state=state):
            return state == "finished"
        case Request() | Renewal() | Answer() | Rollout() | Fitness():
            return False
