"""One contender over one arena: the product's own rounds, every payload as bytes, scores at chosen rounds.

The same probe for everybody, the product's: `fit_classifier` on embeddings of the labelled windows and of changed
copies of them, scored on the test windows.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.arena import Arena, Device
from bench.contender import Classifier, Contender, Payload
from bench.wire import Sized, Wire
from coordinator import round as rounds
from coordinator.classifier import fit_classifier, with_changed
from mekt.learning import Arrays, Progress
from mekt.plan import Method, Plan
from mekt.scores import confusion, f1_scores, weighted_f1
from mekt.traffic import WireBytes
from sensors.windows import WindowSet

FUSED = "fused"
# With more modalities than this, only each alone and all together are scored.
ALL_SUBSETS = 3
# A window that takes less was not learned from.
QUICKEST_S = 1e-6
# Group -> measure -> share from 0 to 1.
Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """Scores after `round` rounds, 0 before the first: of the probe, and of the method's own head where it has one.

    `scored` counts of each group the models whose mean the probe's scores are.
    """

    round: int
    scores: Scores
    heads: Scores
    scored: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """One round, counted from 0. `wire`: device -> kind -> bytes; `seconds` by part; `windows` learned, repeats too.

    Kinds: `session` and `proxy` once for each device, `announcement`, `payload` (knowledge or parameters, with offer,
    requests and receipts), `presence`.
    """

    round: int
    participants: tuple[str, ...]
    wire: Mapping[str, Mapping[str, WireBytes]]
    seconds: Mapping[str, float]
    windows: int

    def bytes_of(self, kinds: Iterable[str]) -> WireBytes:
        """The sum over all devices of these kinds."""
        wanted = frozenset(kinds)
        return sum((n for each in self.wire.values() for kind, n in each.items() if kind in wanted), start=WireBytes())


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """All that a run gave."""

    evaluated: tuple[Evaluated, ...]
    played: tuple[Played, ...]

    @property
    def seconds(self) -> dict[str, float]:
        """By part, over all rounds."""
        parts = sorted({part for each in self.played for part in each.seconds})
        return {part: sum(each.seconds.get(part, 0.0) for each in self.played) for part in parts}

    @property
    def windows_per_s(self) -> float:
        """Private windows learned from, repeats too, per second of local learning; 0 where devices do not learn."""
        return pace(sum(each.windows for each in self.played), self.seconds.get("local", 0.0))


def pace(windows: int, local_s: float) -> float:
    """Windows a second; 0 when so many could not have been learned from in that time."""
    return windows / local_s if local_s > windows * QUICKEST_S else 0.0


def plan_for(arena: Arena, method: Method, *, rounds: int, seed: int) -> Plan:
    """The plan that a coordinator would make of this arena."""
    return Plan(
        run="0" * 32,
        seed=seed,
        rounds=rounds,
        window=arena.window,
        modalities=arena.modalities,
        scaling=arena.datasets.scaling,
        proxy=arena.datasets.proxy_refs,
        proxy_windows=arena.datasets.proxy_windows,
        method=method,
    )


def run(
    contender: Contender,
    arena: Arena,
    plan: Plan,
    *,
    evaluate: Sequence[int] | None = None,
    progress: Progress = lambda done, whole: None,
) -> Run:
    """The plan's rounds, scored after each number of rounds in `evaluate` (None: after the last).

    As many devices learn at a time as torch has threads.

    Args:
        contender: at its start; it is changed.
        arena: devices and windows.
        plan: gives the number of rounds, and the seed that draws the participants.
        evaluate: numbers of rounds, 0 for the start.
        progress: is told how much is done: what a participant, a coordinator or a probe does counts one.
    """
    return _Game(contender, arena, plan, evaluate, progress).play()


class _Game:
    """One run, while it is under way."""

    def __init__(
        self,
        contender: Contender,
        arena: Arena,
        plan: Plan,
        evaluate: Sequence[int] | None,
        progress: Progress,
    ) -> None:
        self._contender, self._arena, self._plan = contender, arena, plan
        self._devices = {each.name: each for each in sorted(arena.devices, key=lambda each: each.name)}
        self._sized = {name: sized(each) for name, each in self._devices.items()}
        self._rules = rounds.RoundRules(min_devices=len(self._devices), share=arena.share)
        self._evaluate = frozenset({plan.rounds} if evaluate is None else evaluate)
        self._wire = Wire(plan)
        self._has_proxy: set[str] = set()
        self._evaluated: list[Evaluated] = []
        self._played: list[Played] = []
        self._progress, self._done = progress, 0
        chosen = max(1, int(np.ceil(arena.share * len(self._devices) - 1e-9)))
        self._whole = plan.rounds * (chosen + 1) + len(self._evaluate)

    def play(self) -> Run:
        """All rounds."""
        state = rounds.RoundState(rounds=self._plan.rounds, seed=self._plan.seed)
        queued: list[rounds.Event] = [rounds.DeviceOnline(device=name) for name in self._devices]
        self._score(0, {})
        while queued:
            state, commands = rounds.advance(state, queued.pop(0), self._rules, 0.0)
            for command in commands:
                match command:
                    case rounds.OpenRound(round=number, participants=participants):
                        sent = self._collect(number, participants)
                        queued += [rounds.KnowledgeStored(device=name, round=number) for name in participants]
                    case rounds.DistilRound(round=number, devices=devices):
                        self._close(number, {name: sent[name] for name in devices})
                        queued.append(rounds.Distilled(round=number))
                    case rounds.SettleStep() | rounds.Finish():
                        pass
        return Run(evaluated=tuple(self._evaluated), played=tuple(self._played))

    def _collect(self, number: int, participants: tuple[str, ...]) -> dict[str, Payload]:
        """The round up to where everybody has delivered."""
        began_s = time.perf_counter()
        announced = {name: self._contender.announce(number, name) for name in participants}
        announced_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        sent = {}
        learned = _each(lambda name: self._contender.learn(name, number, announced[name]), participants)
        for name, payload in zip(participants, learned, strict=True):
            sent[name] = payload
            self._step()
        local_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        wire = self._count(number, participants, announced, sent)
        windows = sum(len(self._devices[name].private) for name in participants) * self._plan.method.local_epochs
        seconds = {"announce": announced_s, "local": local_s, "wire": time.perf_counter() - began_s}
        self._played.append(
            Played(round=number, participants=participants, wire=wire, seconds=seconds, windows=windows)
        )
        return sent

    def _count(
        self,
        number: int,
        participants: tuple[str, ...],
        announced: Mapping[str, Payload],
        sent: Mapping[str, Payload],
    ) -> dict[str, dict[str, WireBytes]]:
        """What crossed the wire; nothing at all where nobody exchanges anything."""
        exchanges = self._contender.uses_proxy or any(announced.values()) or any(sent.values())
        if not exchanges:
            return {name: {} for name in self._devices}
        parts = {part: data for each in announced.values() for part, data in each.items()}
        word = self._wire.announcement(number, participants, parts)
        wire = {name: {"announcement": word} for name in self._devices}
        if number == 0:
            for name, of in self._sized.items():
                wire[name]["session"] = self._wire.session(of, parts)
        for name in participants:
            of, kinds = self._sized[name], wire[name]
            if self._contender.uses_proxy and name not in self._has_proxy:
                self._has_proxy.add(name)
                blobs = {each: self._arena.datasets.blobs[each] for each in self._devices[name].modalities}
                kinds["proxy"] = self._wire.proxy(of, blobs)
            received = self._wire.received(of, number, announced[name])
            kinds["payload"] = received + self._wire.sent(of, number, sent[name])
            kinds["presence"] = self._wire.presence(of, number)
        return wire

    def _close(self, number: int, sent: Mapping[str, Payload]) -> None:
        began_s = time.perf_counter()
        self._contender.close(number, sent)
        played = self._played[-1]
        assert isinstance(played.seconds, dict)
        played.seconds["distil"] = time.perf_counter() - began_s
        self._step()
        self._score(number + 1, played.seconds)

    def _score(self, rounds_done: int, seconds: dict[str, float]) -> None:
        if rounds_done not in self._evaluate:
            return
        began_s = time.perf_counter()
        self._evaluated.append(evaluate(self._contender, self._arena, self._plan, rounds_done))
        seconds["probe"] = time.perf_counter() - began_s
        self._step()

    def _step(self) -> None:
        self._done += 1
        self._progress(self._done, self._whole)


def _each(work: Callable[[str], Payload], names: Iterable[str]) -> Iterator[Payload]:
    """What the work on each name gives, in their order, on all threads that torch has.

    Small operations gain little from several threads, so every piece of work has one.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, names)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, names)


def sized(device: Device) -> Sized:
    """The device as the wire sees it."""
    return Sized(device=device.name, modalities=dict(device.architectures), windows=len(device.private))


def groups_of(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What is scored: each modality alone, all together, and of three every pair; name -> modalities in order."""
    names = sorted(modalities)
    sizes = range(1, len(names) + 1) if len(names) <= ALL_SUBSETS else (1, len(names))
    groups = [group for size in sizes for group in itertools.combinations(names, size)]
    return {group_name(group, names): group for group in groups}


def group_name(group: Sequence[str], modalities: Sequence[str]) -> str:
    """`acc` alone, `acc+gyro`, or `fused` when these are all of several."""
    return FUSED if len(group) == len(modalities) > 1 else "+".join(sorted(group))


def evaluate(contender: Contender, arena: Arena, plan: Plan, rounds_done: int) -> Evaluated:
    """Scores on the test windows, of the contender as it is now.

    Raises:
        ValueError: when the arena has no labelled or no test windows.
    """
    labelled, test = arena.datasets.labelled, arena.datasets.test
    if labelled is None or test is None:
        raise ValueError(f"{arena.protocol}: no labelled or no test windows; a comparison needs both")
    labelled = with_changed(plan, labelled)
    classes = len(arena.datasets.classes)
    names = [each.name for each in arena.modalities]
    pairs = list(zip(contender.embed(labelled.arrays), contender.embed(test.arrays), strict=True))
    scores: dict[str, dict[str, float]] = {}
    scored: dict[str, int] = {}
    for name, group in groups_of(names).items():
        able = [pair for pair in pairs if set(group) <= set(pair[0])]
        if able:
            scored[name] = len(able)
            scores[name] = _mean([_probe(pair, group, labelled, test, classes) for pair in able])
    heads: dict[str, dict[str, float]] = {}
    if isinstance(contender, Classifier):
        answers = contender.predict(test.arrays)
        heads = {group_name(group, names): measures(test.labels, each, classes) for group, each in answers.items()}
    return Evaluated(round=rounds_done, scores=scores, heads=heads, scored=scored)


def _probe(
    embedded: tuple[Arrays, Arrays], group: tuple[str, ...], labelled: WindowSet, test: WindowSet, classes: int
) -> dict[str, float]:
    """The linear probe on one model's embeddings, side by side: learned from some windows, scored on others."""
    known, unknown = (np.concatenate([each[name] for name in group], axis=1) for each in embedded)
    classifier = fit_classifier(known, labelled.labels, classes)
    return measures(test.labels, classifier.predict(unknown), classes)


def measures(truth_N: NDArray[np.int64], answer_N: NDArray[np.int64], classes: int) -> dict[str, float]:
    """Weighted F1, the plain mean of the F1 of the classes that occur, and the share of right answers."""
    counts = confusion(truth_N, answer_N, classes)
    occurs = counts.sum(axis=1) > 0
    return {
        "weighted_f1": weighted_f1(truth_N, answer_N, classes),
        "macro_f1": float(f1_scores(counts)[occurs].mean()),
        "accuracy": float(np.trace(counts) / counts.sum()),
    }


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {measure: float(np.mean([each[measure] for each in scores])) for measure in scores[0]}
