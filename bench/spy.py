"""Rounds in which the coordinator is curious: what it can tell of who was learned from, after so many of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.arena import Arena
from bench.cells import Attacked
from bench.contender import Contender, Payload
from bench.contenders.fedmekt import FedMekt
from bench.contenders.parameters import Averaging
from bench.members import Target, targets_and_shadows
from bench.membership import ATTACKS, Evidence, by_loss, chosen, evidence, hit, joined
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

    It looks at every round, and tells by all that it has seen until then. Shadows learn as the others do, from what the
    coordinator announces, and only it knows: nothing of them enters the aggregate. For the attack on the sum they are a
    federation of their own.
    """
    watcher = watcher_of(contender, plan)
    found: list[Attacked] = []
    so_far: dict[tuple[str, str], Evidence] = {}
    steps = [*targets, *shadows]
    whole, done = plan.rounds * (1 + len(WAYS)) * len(steps), 0
    for number in range(plan.rounds):
        announced, sent = {}, {}
        for each in steps:
            name = each.device.name
            announced[name] = contender.announce(number, name)
            sent[name] = contender.learn(name, number, announced[name])
            progress(done := done + 1, whole)
        for way in WAYS:
            for each in steps:
                key = way, each.device.name
                groups = _looked_at(way, each, targets, shadows)
                latest = _evidence(watcher, arena, plan, number, each, groups, announced, sent)
                so_far[key] = joined(so_far[key], latest) if number else latest
                progress(done := done + 1, whole)
            if number + 1 in moments and (way == WAYS[0] or number + 1 == plan.rounds):
                seen = [so_far[way, each.device.name] for each in steps]
                found += _told(way, number, targets, seen[: len(targets)], seen[len(targets) :])
        contender.close(number, {each.device.name: sent[each.device.name] for each in targets})
    return tuple(found)


def _looked_at(way: str, each: Target, targets: Sequence[Target], shadows: Sequence[Target]) -> list[Sequence[Target]]:
    """Whose sum shows the device's windows, alone or with others, and then those whose sums know nothing of them."""

    def can_stand_in(group: Sequence[Target]) -> bool:
        having = {name for one in group for name in one.device.modalities}
        return each not in group and having.issuperset(each.device.modalities)

    if way == "own":
        return [[each], *([one] for one in shadows if can_stand_in([one]))]
    own, other = (targets, shadows) if each in targets else (shadows, targets)
    return [own, *([other] if can_stand_in(other) else [])]


def _evidence(
    watcher: Watcher,
    arena: Arena,
    plan: Plan,
    number: int,
    each: Target,
    groups: Sequence[Sequence[Target]],
    announced: Mapping[str, Payload],
    sent: Mapping[str, Payload],
) -> Evidence:
    name = each.device.name
    observed, *others = (
        watcher.models(name, number, {one.device.name: sent[one.device.name] for one in group}) for group in groups
    )
    inside, outside = (_normalised(arena, windows) for windows in (each.device.private.arrays, each.outsiders.arrays))
    return evidence(observed, watcher.reference(name, announced[name]), others, plan, inside, outside)


def _normalised(arena: Arena, windows: Arrays) -> Arrays:
    return {name: normalise(array, arena.datasets.scaling[name]) for name, array in windows.items()}


def _told(
    way: str, number: int, targets: Sequence[Target], seen: Sequence[Evidence], shadows: Sequence[Evidence]
) -> list[Attacked]:
    told, by = [], chosen(shadows)
    for each, found in zip(targets, seen, strict=True):
        most = hit(ATTACKS[by](shadows, found), found.is_member)
        ahead = hit(by_loss(shadows, found), found.is_member)
        told.append(
            Attacked(
                round=number + 1,
                way=way,
                device=each.device.name,
                by=by,
                auc=most.auc,
                tpr=most.tpr,
                loss_auc=ahead.auc,
                loss_tpr=ahead.tpr,
            )
        )
    return told
