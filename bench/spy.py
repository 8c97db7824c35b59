"""Rounds in which the coordinator is curious: what it can tell of who was learned from, after so many of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.arena import Arena
from bench.cells import Attacked
from bench.contender import Contender, Payload
from bench.contenders.fedmekt import FedMekt
from bench.contenders.parameters import Averaging
from bench.inference import Evidence, Hit, evidence, hit, learned_scores
from bench.members import Target, targets_and_shadows
from bench.surrogate import KnowledgeWatcher, ParameterWatcher, Watcher
from mekt import catalogue
from mekt.errors import SettingsError
from mekt.learning import Arrays, Progress
from mekt.plan import Plan
from sensors.normalise import normalise

# So many devices are attacked, and as many are the attacker's shadows.
TARGETS = 6
# What is looked at: what each device sent, and after the last round what all have sent together.
WAYS = ("own", "sum")


def spied_on(arena: Arena, seed: int) -> tuple[Arena, tuple[Target, ...], tuple[Target, ...]]:
    """The arena with half of the windows of few devices, all of whom take part; those attacked, and the shadows."""
    targets, shadows = targets_and_shadows(arena, TARGETS, seed)
    if not targets:
        raise SettingsError(
            f"bench privacy: {arena.protocol} has {len(arena.devices)} devices; an attack needs two",
            catalogue.ARGUMENTS_UNFIT,
        )
    devices = tuple(each.device for each in (*targets, *shadows))
    return replace(arena, devices=devices, share=1.0), targets, shadows


def watcher_of(contender: Contender, plan: Plan) -> Watcher:
    """How this contender's rounds are watched.

    Raises:
        SettingsError: when nobody knows how.
    """
    if isinstance(contender, FedMekt):
        return KnowledgeWatcher(contender, plan)
    if isinstance(contender, Averaging):
        return ParameterWatcher(contender)
    raise SettingsError("bench privacy: only fedmekt-s, fedmekt-c and averaging are attacked", catalogue.CHOICE_UNKNOWN)


def attack(
    contender: Contender,
    arena: Arena,
    plan: Plan,
    targets: Sequence[Target],
    shadows: Sequence[Target],
    moments: Sequence[int],
    progress: Progress = lambda done, whole: None,
) -> tuple[Attacked, ...]:
    """The plan's rounds, with what the coordinator could tell after each number of rounds in `moments`.

    Shadows learn as the others do, from what the coordinator announces, and only it knows: nothing of them enters the
    aggregate. For the attack on the sum they are a federation of their own.
    """
    watcher = watcher_of(contender, plan)
    found: list[Attacked] = []
    steps = [*targets, *shadows]
    whole, done = (plan.rounds + len(moments) + 1) * len(steps), 0
    for number in range(plan.rounds):
        announced, sent = {}, {}
        for each in steps:
            name = each.device.name
            announced[name] = contender.announce(number, name)
            sent[name] = contender.learn(name, number, announced[name])
            progress(done := done + 1, whole)
        if number + 1 in moments:
            for way in WAYS if number + 1 == plan.rounds else WAYS[:1]:
                seen = []
                for group in (targets, shadows):
                    within = {each.device.name: sent[each.device.name] for each in group}
                    for each in group:
                        seen.append(_evidence(watcher, way, arena, plan, number, each, announced, within))
                        progress(done := done + 1, whole)
                found += _told(way, number, targets, seen[: len(targets)], seen[len(targets) :])
        contender.close(number, {each.device.name: sent[each.device.name] for each in targets})
    return tuple(found)


def _evidence(
    watcher: Watcher,
    way: str,
    arena: Arena,
    plan: Plan,
    number: int,
    each: Target,
    announced: Mapping[str, Payload],
    sent: Mapping[str, Payload],
) -> Evidence:
    name = each.device.name
    model = watcher.own(name, number, sent[name]) if way == "own" else watcher.summed(name, number, sent)
    inside, outside = (_normalised(arena, windows) for windows in (each.device.private.arrays, each.outsiders.arrays))
    return evidence(model, watcher.reference(name, announced[name]), plan, inside, outside)


def _normalised(arena: Arena, windows: Arrays) -> Arrays:
    return {name: normalise(array, arena.datasets.scaling[name]) for name, array in windows.items()}


def _told(
    way: str, number: int, targets: Sequence[Target], seen: Sequence[Evidence], shadows: Sequence[Evidence]
) -> list[Attacked]:
    told = []
    for each, found in zip(targets, seen, strict=True):
        learned: Hit = hit(learned_scores(shadows, found), found.is_member)
        fallen: Hit = hit(found.fall, found.is_member)
        told.append(
            Attacked(
                round=number + 1,
                way=way,
                device=each.device.name,
                auc=learned.auc,
                tpr=learned.tpr,
                loss_auc=fallen.auc,
                loss_tpr=fallen.tpr,
            )
        )
    return told
