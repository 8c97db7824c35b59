"""A round's secure sum on the coordinator's side: what devices say step by step, kept, passed on, and unmasked.

What decides who takes part in which step is the round's state machine (`coordinator.round`); what is computed, and what
the coordinator can and cannot see, says `mekt.masks`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, assert_never

import msgpack
import numpy as np

from coordinator.intake import Refused
from coordinator.ledger import Delivery, Ledger
from coordinator.round import NEXT, Phase, RoundState, StepTaken
from mekt import catalogue
from mekt.errors import StateError, WireError
from mekt.files import BlobStore
from mekt.fixedpoint import FINE, UNSIGNED
from mekt.learning import Knowledge
from mekt.masks import Advertisement, Collector, Revealed, sum_context
from mekt.messages import Keys, Shares, Step, Trouble, Unmasking, unpack
from mekt.messages import Summing as Word
from mekt.plan import Plan
from mekt.schema import SchemaError, build, plain

log = logging.getLogger(__name__)

STEPS: Mapping[Phase, Step] = {
    "collecting": "keys",
    "sharing": "shares",
    "masking": "words",
    "unmasking": "unmasking",
}
PHASES: Mapping[type[Keys | Shares | Unmasking], Phase] = {
    Keys: "collecting",
    Shares: "sharing",
    Unmasking: "unmasking",
}
T = TypeVar("T", Keys, Shares, Unmasking)


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretSum:
    """All that a sum is made of: keys of its members, what they dealt, whose words it is of, the shares told."""

    contexts: Mapping[str, bytes]
    shape: tuple[int, int]
    keys: Mapping[str, Keys]
    dealt: Mapping[str, Shares]
    words: Mapping[str, Delivery]
    told: Mapping[str, Unmasking]
    groups: Mapping[str, tuple[str, ...]]

    def means(self, blobs: BlobStore) -> dict[str, Knowledge]:
        """The weighted mean of each modality. One that does not come out is left out, and that is logged.

        Raises:
            MissingPackageError: when `cryptography` is not installed.
        """
        means = {}
        for name in sorted(self.groups):
            try:
                means[name] = self._mean(name, blobs)
            except (WireError, ValueError) as error:
                log.error("%s: the sum cannot be unmasked, or is none (%s); it is learned without", name, error)
        return means

    def _mean(self, name: str, blobs: BlobStore) -> Knowledge:
        members = self.groups[name]
        collector = Collector(self.contexts[name])
        for device in members:
            keys = self.keys[device].keys[name]
            collector.advertised(Advertisement(device=device, seal_key=keys.seal, mask_key=keys.mask))
        for device in members:
            if device in self.dealt:
                collector.dealt(device, self.dealt[device].sealed[name])
        for device in members:
            if device in self.words:
                ref = self.words[device].knowledge[name]
                raw = blobs.get(ref)
                if raw is None:
                    raise ValueError(f"{blobs.folder}: the words of {device} are gone")
                collector.masked(device, np.frombuffer(raw, dtype=UNSIGNED[FINE.bits]))
        for device in members:
            if device in self.told:
                told = self.told[device]
                shares = Revealed(seeds=told.seeds[name], mask_keys=told.mask_keys.get(name, {}))
                collector.revealed(device, shares)
        mean_ND, _ = FINE.mean(collector.sum(), self.shape)
        return Knowledge(embedding=mean_ND, hidden=None)


class Summing:
    """The secure sums of a federation's rounds, one at a time, in its ledger."""

    def __init__(self, federation: str, plan: Plan, ledger: Ledger) -> None:
        self._federation, self._plan, self._ledger = federation, plan, ledger

    def take(self, device: str, number: int, word: Keys | Shares | Unmasking, state: RoundState) -> StepTaken | Refused:
        """Keep what a device says; it is durable when this returns. What was said before may be said again."""
        step = PHASES[type(word)]
        taken = StepTaken(device=device, round=number, step=step)
        there = state.settled.get(step, state.received if state.phase == step else ())
        if number == state.round and device in there:
            return taken
        problem = self._problem(device, number, word, step, state)
        if problem is not None:
            trouble, reason = problem
            return Refused(age=0, trouble=trouble, reason=reason)
        self._ledger.say(number, step, device, msgpack.packb(plain(word)))
        return StepTaken(
            device=device, round=number, step=step, modalities=tuple(word.keys) if isinstance(word, Keys) else ()
        )

    def offered(self, number: int) -> dict[str, tuple[str, ...]]:
        """Of each device whose keys are there, the modalities that it has knowledge of."""
        return {device: tuple(word.keys) for device, word in self._said(number, Keys).items()}

    def takers(self, number: int, step: Phase) -> tuple[str, ...]:
        """Who has taken a step, whether it is settled or not."""
        if step == "masking":
            return tuple(delivery.device for delivery in self._ledger.deliveries(number))
        return tuple(self._ledger.said(number, step))

    def word(self, state: RoundState) -> Word:
        """What is announced of the step that is to be taken."""
        said = self._said(state.round, Keys) if state.settled else {}
        members = {
            name: {device: said[device].keys[name] for device in members} for name, members in state.groups.items()
        }
        survivors = state.settled.get("masking", ())
        return Word(step=STEPS[state.phase], members=members, survivors=survivors)

    def inbox(self, device: str, state: RoundState) -> Shares | None:
        """What others have sealed to a device that has dealt shares itself; None before all have, and for others."""
        dealers = state.settled.get("sharing", ())
        if device not in dealers or not state.is_open:
            return None
        dealt = self._said(state.round, Shares)
        sealed = {
            name: {who: dealt[who].sealed[name][device] for who in members if who in dealers and who != device}
            for name, members in state.groups.items()
            if device in members
        }
        return Shares(sealed=sealed) if sealed else None

    def sum(self, state: RoundState) -> SecretSum:
        """All of it, when every step is settled."""
        number, groups = state.round, state.groups
        survivors = state.settled.get("masking", ())
        revealers = state.settled.get("unmasking", ())
        return SecretSum(
            contexts={name: sum_context(self._federation, self._plan.run, number, name) for name in groups},
            shape=(self._plan.knowledge_rows, self._plan.method.embedding),
            keys=self._said(number, Keys),
            dealt={who: word for who, word in self._said(number, Shares).items() if who in state.settled["sharing"]}
            if groups
            else {},
            words={each.device: each for each in self._ledger.deliveries(number) if each.device in survivors},
            told={who: word for who, word in self._said(number, Unmasking).items() if who in revealers},
            groups=groups,
        )

    def _said(self, number: int, kind: type[T]) -> dict[str, T]:
        """What devices said of this kind.

        Raises:
            StateError: when it is not what was kept.
        """
        try:
            said = self._ledger.said(number, PHASES[kind])
            return {device: build(kind, unpack(word)) for device, word in said.items()}
        except (WireError, SchemaError) as error:
            raise StateError(
                f"{self._ledger.path}: what devices said of round {number + 1} is damaged ({error}); restore the file "
                "from a copy",
                catalogue.STATE_DAMAGED,
            ) from error

    def _problem(
        self, device: str, number: int, word: Keys | Shares | Unmasking, step: Phase, state: RoundState
    ) -> tuple[Trouble, str] | None:
        """Why this is not taken, or None."""
        if number > state.round:
            return "early-round", f"round {number + 1} has not begun"
        if number < state.round or step in state.settled or state.phase == "distilling":
            return "old-round", f"round {number + 1} is past this step"
        if state.phase != step:
            return "early-round", f"round {number + 1} is not at this step yet"
        if device not in state.participants:
            return "uninvited", f"{device} takes no part in this step"
        groups = {name: set(members) for name, members in state.groups.items() if device in members}
        match word:
            case Keys(keys=keys):
                fits = set(keys) <= set(self._plan.proxy)
            case Shares(sealed=sealed):
                fits = {name: set(each) | {device} for name, each in sealed.items()} == groups
                fits = fits and all(device not in each for each in sealed.values())
            case Unmasking(seeds=seeds, mask_keys=mask_keys):
                dealers, survivors = set(state.settled["sharing"]), set(state.settled["masking"])
                alive = {name: members & survivors for name, members in groups.items()}
                silent = {name: members & dealers - survivors for name, members in groups.items()}
                fits = {name: set(each) for name, each in seeds.items()} == alive
                fits = fits and {name: set(mask_keys.get(name, ())) for name in groups} == silent
                fits = fits and set(mask_keys) <= set(groups)
            case _:
                assert_never(word)
        return None if fits else ("unfit-offer", f"{device} says other things than those asked for")


def settled_of(told: Mapping[str, tuple[str, ...]]) -> dict[Phase, tuple[str, ...]]:
    """The settled steps that a ledger tells of, in their order."""
    return {step: told[step] for step in NEXT if step in told}
