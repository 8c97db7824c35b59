"""A rollout as a state machine: how a release reaches the wearables, and when it is taken back. Pure.

    canary    -> everybody   `least` of the share say "good", not too many failed, and nobody is left who may still say
                             otherwise, or `hours` have passed; or a person says so
    canary    -> stopped     too many failed, and they are `failures` or `hours` have passed; or without enough good
    everybody -> done        `hours` have passed
    everybody -> stopped     too many failed, and they are `failures` or `hours` have passed
    any       -> stopped     a person says so

Too many are more than `failed_share` of those that say "good" or failed, and among all, before `hours` have passed, of
those under way too: to fail takes seconds, to be good an hour. So one wearable that fails, be it ill or
ill-meaning, does not keep a release from all others where enough are canaries; where they are few nobody but a person
can tell its fault from the release's, and all waits for one.

Whoever stops a rollout ships the release before it again, as a rollout that is done from the start: going back is not
put to the vote.

A wearable's worst word counts, whatever it says after it and however often it says it: so the order in which words come
changes nothing about where they lead. Time is what passed while the coordinator was at work: a clock that is set, or a
coordinator that is away, takes nobody's chance to answer.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, get_args

from mekt.messages import FitnessState, RolloutState, Unfit
from mekt.schema import Bounds, Count, Positive
from mekt.share import share_for, takes_part

HOUR_S = 3600.0
# From the least to the most that can be said: of each wearable, the most counts.
Word = Literal["pending", "unable", "good", "failed"]
WORDS: tuple[Word, ...] = get_args(Word)
LAST: frozenset[Word] = frozenset({"unable", "good", "failed"})
# What says nothing against the release: it is about this one wearable.
ABOUT_THE_WEARABLE: frozenset[Unfit] = frozenset({"disk", "untested", "unfit"})
# Failures that are named in the reason for which a rollout was stopped.
FAILURES_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutRules:
    """How releases reach wearables.

    With `promote` "last" the release of the last round is promoted without a person. A rollout begins with a `share` of
    all wearables, the canaries. It goes on to all of them once `least` canaries have run it for as long as they try a
    release; when `hours` pass without that, the former release is shipped again. So it is, among canaries as among all,
    when more than `failed_share` of those that are done have failed: at once where these are `failures` (among all, so
    many that those under way cannot make up for it), else after `hours`. Then nothing more happens without a person.
    """

    promote: Literal["never", "last"] = "never"
    share: Annotated[float, Bounds(above=0, high=1)] = 0.1
    least: Count = 2
    failures: Count = 2
    failed_share: Annotated[float, Bounds(low=0, high=1)] = 0.1
    hours: Annotated[Positive, Bounds(above=0, high=24 * 365)] = 24.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What counts of a wearable's words on a rollout, and why, where it does not use the release."""

    word: Word
    why: Unfit = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a rollout stands. `waited_s`: so long it has been at this state; `reason`: why it was stopped, or is there.

    `said`: the words of all wearables, also of those that do not take part: with a larger share they may.
    """

    federation: str
    number: int
    release: str
    share: float
    state: RolloutState = "canary"
    waited_s: float = 0.0
    reason: str = ""
    said: dict[str, Said] = field(default_factory=dict)

    @property
    def is_under_way(self) -> bool:
        """Whether it may still be stopped without a person."""
        return self.state in ("canary", "everybody")

    @property
    def heard(self) -> dict[str, Said]:
        """The words of those that take part."""
        return {
            device: said
            for device, said in sorted(self.said.items())
            if takes_part(self.federation, self.number, device, self.share)
        }

    @property
    def counts(self) -> dict[Word, int]:
        """How many of those that take part are how far."""
        words = [said.word for said in self.heard.values()]
        return {word: words.count(word) for word in WORDS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """A wearable has said how it is with the release of this rollout."""

    device: str
    state: FitnessState
    why: Unfit = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """So much time has passed while the coordinator was at work."""

    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Widened:
    """A person wants the release on this share of all wearables; 1 is all of them."""

    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """A person wants the former release back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Announce:
    """Tell all wearables: more of them take part now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoBack:
    """Ship the former release again, in a rollout of its own; where there is none, one to nobody."""

    reason: str


Event = Heard | Passed | Widened | Stopped
Command = Announce | GoBack


def word_of(state: FitnessState, why: Unfit) -> Word:
    """What it means for a rollout that a wearable is so far with its release."""
    match state:
        case "good":
            return "good"
        case "refused" | "rolled-back":
            return "unable" if why in ABOUT_THE_WEARABLE else "failed"
        case "running" | "fetching" | "testing" | "trial":
            return "pending"


def advance(progress: Progress, event: Event, rules: RolloutRules) -> tuple[Progress, tuple[Command, ...]]:
    """The rollout after an event, and what is to be done."""
    match event:
        case Heard(device=device, state=state, why=why):
            said = Said(word=word_of(state, why), why=why)
            known = progress.said.get(device)
            if known is not None and WORDS.index(known.word) >= WORDS.index(said.word):
                return progress, ()
            progress = replace(progress, said={**progress.said, device: said})
        case Passed(seconds=seconds):
            if not progress.is_under_way:
                return progress, ()
            progress = replace(progress, waited_s=progress.waited_s + max(0.0, seconds))
        case Widened(share=share):
            if progress.state != "canary" or share <= progress.share:
                return progress, ()
            wider: RolloutState = "everybody" if share >= 1 else "canary"
            return replace(progress, state=wider, share=min(share, 1.0), waited_s=0.0), (Announce(),)
        case Stopped():
            return _stopped(progress, "a person said so")
    match progress.state:
        case "canary":
            return _canary(progress, rules)
        case "everybody":
            return _everybody(progress, rules)
        case "done" | "stopped":
            return progress, ()


def _canary(progress: Progress, rules: RolloutRules) -> tuple[Progress, tuple[Command, ...]]:
    counts, is_over = progress.counts, _is_over(progress, rules)
    good, fail_too_many = counts["good"], _fail_too_many(counts, rules)
    if fail_too_many and (is_over or counts["failed"] >= rules.failures):
        return _stopped(progress, _failures(progress))
    if not fail_too_many and good >= rules.least and (is_over or not counts["pending"]):
        return replace(progress, state="everybody", share=1.0, waited_s=0.0), (Announce(),)
    if is_over:
        return _stopped(progress, f"{good} of {rules.least} wearables said good within {rules.hours:g} h")
    return progress, ()


def _everybody(progress: Progress, rules: RolloutRules) -> tuple[Progress, tuple[Command, ...]]:
    counts, is_over = progress.counts, _is_over(progress, rules)
    may_be_good = 0 if is_over else counts["pending"]
    if _fail_too_many(counts, rules, may_be_good) and (is_over or counts["failed"] >= rules.failures):
        return _stopped(progress, _failures(progress))
    return (replace(progress, state="done") if is_over else progress), ()


def _fail_too_many(counts: Mapping[Word, int], rules: RolloutRules, may_be_good: int = 0) -> bool:
    return counts["failed"] > rules.failed_share * (counts["good"] + counts["failed"] + may_be_good)


def _stopped(progress: Progress, reason: str) -> tuple[Progress, tuple[Command, ...]]:
    if progress.state == "stopped":
        return progress, ()
    return replace(progress, state="stopped", reason=reason), (GoBack(reason=reason),)


def _is_over(progress: Progress, rules: RolloutRules) -> bool:
    return progress.waited_s >= rules.hours * HOUR_S


def _failures(progress: Progress) -> str:
    """How many failed, and how: of a few, who."""
    failed = [f"{device}: {said.why}" for device, said in progress.heard.items() if said.word == "failed"]
    more = f" and {len(failed) - FAILURES_NAMED} more" if len(failed) > FAILURES_NAMED else ""
    return f"{len(failed)} failed ({', '.join(failed[:FAILURES_NAMED])}{more})"


def too_few(progress: Progress, known: Collection[str], rules: RolloutRules) -> str:
    """That of the wearables that are `known` too few take part for a release ever to be good, and what to do; or ""."""
    taking = sum(takes_part(progress.federation, progress.number, each, progress.share) for each in known)
    if progress.state != "canary" or taking >= rules.least:
        return ""
    if not known:
        return (
            f"whether {rules.least} wearables take part is not known, as none was heard before; --now ships it to all"
        )
    share = share_for(progress.federation, progress.number, known, rules.least)
    wider = f"widen it with --share {share:g}" if share < 1 else "promote it to all with --now"
    return f"{taking} of {len(known)} wearables that are known take part, and {rules.least} have to say good; {wider}"


def text_of(progress: Progress, rules: RolloutRules) -> str:
    """Where it stands and what it waits for, for people."""
    left, counts = f"{max(0.0, rules.hours - progress.waited_s / HOUR_S):.1f} h", progress.counts
    failed = _failures(progress) if progress.is_under_way and counts["failed"] else f"{counts['failed']} failed"
    words = f"{counts['good']} good, {counts['pending']} under way, {failed}"
    if counts["unable"]:
        words += f", {counts['unable']} unable"
    because = f" ({progress.reason})" if progress.reason else ""
    match progress.state:
        case "canary":
            what = f"{progress.release} is on trial on {progress.share:.0%} of wearables: {words}"
            if _fail_too_many(counts, rules):
                return f"{what}; goes back in {left}, unless a person promotes it"
            return f"{what}; waits for {rules.least} good, for {left} at most"
        case "everybody":
            return f"{progress.release} goes to all wearables: {words}; watched for {left} more"
        case "done":
            return f"{progress.release} is what wearables run{because}: {words}"
        case "stopped":
            return f"{progress.release} was stopped{because}: {words}"
