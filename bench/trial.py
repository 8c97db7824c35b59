"""One cell run: its arena read, its method played, what came of it as it is kept.

`python -m bench.trial DIR` is a process that does so for one cell after the other, on the recordings below DIR.
"""

import dataclasses
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from bench.arena import Arena
from bench.attacks import ATTACKS, attackers
from bench.cells import Cell, Evaluation, Outcome, Traffic
from bench.choice import CHOICES
from bench.contender import Contender
from bench.contenders.fedmekt import FedMekt
from bench.engine import Played, Run, plan_for, run
from bench.offers import PROTOCOLS
from bench.protocol import ProtocolSpec, read_arena
from bench.registry import METHODS
from bench.speed import WHOLE, Figures, measure
from bench.spy import attack, spied_on
from bench.worker import serve
from coordinator.round import RoundRules
from mekt import catalogue
from mekt.accounting import epsilon_of
from mekt.errors import SettingsError
from mekt.noise import Mechanism
from mekt.plan import Architecture, Method, Plan
from mekt.schema import SchemaError, build, plain
from mekt.settings import entry_of
from mekt.traffic import WireBytes

# Scores are taken at this many moments of a run, beside the start and the first round.
MOMENTS = 4
FIRST_ROUNDS = (0, 1)
# For which epsilon is told: far below one in the number of devices.
DELTA = 1e-5


def run_cell(cell: Cell, data: Path, tell: Callable[[float], None] = lambda share: None) -> Outcome:
    """Run `cell`; `tell` is told which share is done. Equal cells give equal scores and bytes.

    Raises:
        SettingsError: when its settings cannot work.
        SensorError: when recordings are missing.
    """
    arena = arena_of(cell, data)
    method = method_of(cell)
    if cell.timed:
        torch.set_num_threads(os.cpu_count() or 1)
        return outcome_of_time(measure(arena, cell.method, settings=method, rounds=cell.rounds, seed=cell.seed), cell)
    if cell.curious:
        return spied(cell, arena, method, tell)
    plan = plan_for(arena, method, rounds=cell.rounds, seed=cell.seed)
    entry = METHODS[cell.method]
    contender = protecting(entry.make(arena, plan, cell.seed), cell)
    done = run(
        contender,
        arena,
        plan,
        evaluate=moments_of(cell),
        progress=lambda count, whole: tell(count / whole),
    )
    outcome = outcome_of(done, arena)
    return dataclasses.replace(outcome, epsilon=epsilon_of_run(cell, plan, arena, done)) if cell.clip else outcome


def spied(cell: Cell, arena: Arena, method: Method, tell: Callable[[float], None]) -> Outcome:
    """What a curious coordinator can tell of few devices, all of which take part in every round.

    Raises:
        SettingsError: when nobody knows how to attack the method.
    """
    arena, targets, shadows = spied_on(arena, cell.seed)
    plan = plan_for(arena, method, rounds=cell.rounds, seed=cell.seed)
    contender = protecting(METHODS[cell.method].make(arena, plan, cell.seed), cell)
    told = attack(
        contender,
        arena,
        plan,
        targets,
        shadows,
        attack_moments(cell.rounds),
        progress=lambda count, whole: tell(count / whole),
    )
    most = max(len(each.device.modalities) for each in targets)
    return Outcome(
        evaluations=(Evaluation(round=cell.rounds, scores={}),),
        devices=len(targets),
        proxy_windows=arena.datasets.proxy_windows,
        attacks=told,
        epsilon=_epsilon(cell, plan, most * cell.rounds) if cell.clip else None,
    )


def attack_moments(rounds: int) -> tuple[int, ...]:
    """After which numbers of rounds the coordinator attacks: the first, half of all, and the last."""
    return tuple(sorted({1, -(-rounds // 2), rounds}))


def protecting(contender: Contender, cell: Cell) -> Contender:
    """The contender, its devices' knowledge protected as the cell says.

    Raises:
        SettingsError: when it exchanges something else.
    """
    if cell.clip:
        if not isinstance(contender, FedMekt):
            raise SettingsError(f"bench: {cell.method} exchanges no knowledge to protect", catalogue.CHOICE_UNKNOWN)
        contender.mechanism = Mechanism(clip=cell.clip, noise_multiplier=cell.noise)
    return contender


def epsilon_of_run(cell: Cell, plan: Plan, arena: Arena, done: Run) -> float | None:
    """What the device that gave away most has given away; None without noise."""
    matrices = Counter(
        {
            each.name: len(each.modalities) * sum(each.name in played.participants for played in done.played)
            for each in arena.devices
        }
    )
    return _epsilon(cell, plan, max(matrices.values()))


def _epsilon(cell: Cell, plan: Plan, matrices: int) -> float | None:
    mechanism = Mechanism(clip=cell.clip, noise_multiplier=cell.noise)
    epsilon = epsilon_of(matrices * mechanism.mu_squared(plan.knowledge_rows), DELTA)
    return epsilon if math.isfinite(epsilon) else None


def method_of(cell: Cell) -> Method:
    """The method's settings with those of the protocol and the cell's changes.

    Raises:
        SettingsError: when there is no such setting, or not of such a value.
    """
    try:
        return build(Method, {**plain(Method()), **PROTOCOLS[cell.protocol].method, **dict(cell.changes)}, "changes")
    except SchemaError as error:
        raise SettingsError(f"bench: {error}", entry_of(error)) from error


def arena_of(cell: Cell, data: Path) -> Arena:
    """The arena that the cell names.

    Raises:
        SettingsError: when it cannot be.
        SensorError: when recordings are missing.
    """
    protocol = PROTOCOLS[cell.protocol]
    if cell.only:
        protocol = only(protocol, cell.only)
    arena = read_arena(
        protocol,
        cell.rotation,
        data,
        quick=cell.quick,
        proxy_windows=cell.proxy_windows or None,
        labelled_share=cell.labelled_share,
        seed=cell.seed,
        proxy_rows=CHOICES[cell.proxy_choice or "even"],
        architectures=dealt(protocol, cell.models) if cell.models else None,
    )
    if cell.participants:
        arena = dataclasses.replace(arena, share=min(1.0, cell.participants / len(arena.devices)))
    return poisoned(dataclasses.replace(arena, rules=rules_of(cell)), cell)


def rules_of(cell: Cell) -> RoundRules:
    """How the coordinator aggregates in this cell, and whom it leaves out.

    Raises:
        SettingsError: when there is no such way.
    """
    named = {"aggregator": cell.aggregator, "quarantine": cell.quarantine}
    try:
        return build(RoundRules, {key: value for key, value in named.items() if value}, "cell")
    except SchemaError as error:
        raise SettingsError(f"bench: {error}", entry_of(error)) from error


def poisoned(arena: Arena, cell: Cell) -> Arena:
    """The arena with those devices among its own that attack, drawn by the seed."""
    if not cell.attack:
        return arena
    attack = ATTACKS[cell.attack]
    names = [each.name for each in arena.devices]
    drawn = attackers(names, cell.attackers or attack.share, cell.seed)
    return dataclasses.replace(arena, attack=attack, attackers=drawn)


def only(protocol: ProtocolSpec, modality: str) -> ProtocolSpec:
    """The protocol as it is where there is no other modality: every device has it, with the same recordings."""
    kept = tuple(each for each in protocol.modalities if each.name == modality)
    return dataclasses.replace(protocol, modalities=kept, sets=((modality,),))


def dealt(protocol: ProtocolSpec, models: str) -> dict[int, dict[str, Architecture]]:
    """Architectures "a+b" dealt to devices and modalities in turn, so that each set of modalities gets every one."""
    names: list[Architecture] = models.split("+")  # type: ignore[assignment]
    devices = protocol.parts * max(len(roles.clients) for roles in protocol.rotations)
    return {
        device: {
            modality: names[(device // len(protocol.sets) + place) % len(names)]
            for place, modality in enumerate(sorted(protocol.sets[device % len(protocol.sets)]))
        }
        for device in range(devices)
    }


def moments_of(cell: Cell) -> tuple[int, ...]:
    """After which numbers of rounds there are scores of this cell; what attacks and guards cost is seen at the end."""
    if cell.attack or cell.aggregator or cell.quarantine:
        return (cell.rounds,)
    return (0, cell.rounds) if METHODS[cell.method].learns_once else moments(cell.rounds)


def moments(rounds: int) -> tuple[int, ...]:
    """After which numbers of rounds there are scores: of the first ones each, then evenly, and of the last."""
    evenly = {round(rounds * moment / MOMENTS) for moment in range(MOMENTS + 1)}
    return tuple(sorted({number for number in FIRST_ROUNDS if number <= rounds} | evenly))


def outcome_of(done: Run, arena: Arena) -> Outcome:
    """What is kept of a run."""
    return Outcome(
        evaluations=tuple(
            Evaluation(round=each.round, scores=_copied(each.scores), heads=_copied(each.heads))
            for each in done.evaluated
        ),
        traffic=tuple(_traffic(each) for each in done.played),
        seconds=done.seconds,
        windows=sum(each.windows for each in done.played),
        devices=len(arena.devices),
        proxy_windows=arena.datasets.proxy_windows,
    )


def outcome_of_time(figures: Figures, cell: Cell) -> Outcome:
    """What is kept of a run whose seconds were taken: the median of its rounds, of each part; no scores, no bytes."""
    seconds = {part: each.median * cell.rounds for part, each in figures.seconds.items() if part != WHOLE}
    return Outcome(
        evaluations=(Evaluation(round=cell.rounds, scores={}),),
        seconds={**seconds, "cpu": figures.cpu_s * cell.rounds},
        windows=round(figures.windows_per_s.median * seconds["local"]),
    )


def _copied(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {group: dict(measures) for group, measures in scores.items()}


def _traffic(played: Played) -> Traffic:
    """Bytes of a round by kind; what those get who only listen is the kind "others"."""
    kinds: dict[str, list[WireBytes]] = {}
    for device, sizes in played.wire.items():
        for kind, size in sizes.items():
            listens = device not in played.participants and kind == "announcement"
            kinds.setdefault("others" if listens else kind, []).append(size)
    sums = {kind: sum(sizes, start=WireBytes()) for kind, sizes in sorted(kinds.items())}
    return Traffic(
        round=played.round + 1,
        devices=len(played.participants) if kinds else 0,
        up={kind: size.up for kind, size in sums.items()},
        down={kind: size.down for kind, size in sums.items()},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(lambda cell, tell: run_cell(cell, Path(sys.argv[1]), tell))
