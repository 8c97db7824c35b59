"""Whether decisions are better than single windows, on people and sequences never seen: `mekt bench decide`.

Encoders learn from all clients' windows without labels, in one place (the bound "pooled"), a classifier from the
labelled recordings. Every test recording is then played from its beginning to its end, unlabelled stretches included,
as a wearable would hear it. What is said is compared with the label at each window that has one.

A change is false when the label does not change within `NEAR_S` of it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from bench.contenders.bounds import PooledAutoencoder
from bench.engine import plan_for
from bench.offers import PROTOCOLS
from bench.protocol import ProtocolSpec, data_folder, read_arena, read_test
from coordinator.classifier import fit_classifier
from edge.wearable.decisions import AlarmSettings, Decider, DecideSettings, Decision
from mekt.plan import Method
from mekt.schema import build, plain
from mekt.scores import weighted_f1
from sensors.stream import Recording
from sensors.windows import UNLABELLED, Windower, windows_of

ROUNDS = 3
NEAR_S = 5.0
# The class that a fall is of, and what it is told by; not tuned.
FALL = ("urfall", "transition", AlarmSettings(threshold=0.7, hold_s=10.0))
KINDS = ("fall", "adl")
DECIDED = ("hapt", "urfall")
# Calmer decisions, beside the default.
CALM_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What was said of all test recordings, window by window or decided: F1 and changes an hour, false ones and all.

    `unsure` is the share of labelled windows at which nothing is sure.
    """

    weighted_f1: float
    changes_per_h: float
    false_changes_per_h: float
    unsure: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Falls:
    """In how many sequences with a fall, and in how many of daily life, the class that a fall is of was told."""

    how: str
    falls: int
    of_falls: int
    daily: int
    of_daily: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One protocol: recordings, hours, windows as they come and decided, and falls where there are some."""

    protocol: str
    recordings: int
    hours: float
    windows: Said
    decided: Said
    calm: Said
    falls: tuple[Falls, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Played:
    """A test recording: the ends of its windows (N,), labels (N,) and class probabilities (N, K)."""

    name: str
    ends_s: NDArray[np.float64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def measure(name: str, data: Path, *, rotation: int = 0, rounds: int = ROUNDS) -> Outcome:
    """Learn, play and compare.

    Raises:
        SensorError: when recordings are missing.
    """
    protocol = PROTOCOLS[name]
    played = play(protocol, data, rotation, rounds)
    fall = FALL if name == FALL[0] else None
    settings = DecideSettings(alarms={} if fall is None else {fall[1]: fall[2]})
    plainly = [[protocol.classes[row] for row in each.probabilities.argmax(axis=1)] for each in played]
    decisions = _decided(protocol, played, settings)
    decided, calm = (
        [[each.label for each in row] for row in said]
        for said in (decisions, _decided(protocol, played, replace(settings, least_s=CALM_S)))
    )
    hours = sum(len(each.ends_s) for each in played) * protocol.window.stride_s / 3600
    falls: list[Falls] = []
    if fall is not None:
        falls = [
            _falls("single windows", played, [fall[1] in row for row in plainly]),
            _falls("decisions", played, [fall[1] in row for row in decided]),
            _falls("calm decisions", played, [fall[1] in row for row in calm]),
            _falls(
                f"an alarm at {fall[2].threshold:g}", played, [any(each.alarms for each in row) for row in decisions]
            ),
        ]
    return Outcome(
        protocol=name,
        recordings=len(played),
        hours=hours,
        windows=_said(protocol, played, plainly, hours),
        decided=_said(protocol, played, decided, hours),
        calm=_said(protocol, played, calm, hours),
        falls=tuple(falls),
    )


def _decided(protocol: ProtocolSpec, played: Sequence[Played], settings: DecideSettings) -> list[list[Decision]]:
    given = []
    for each in played:
        decider = Decider(protocol.classes, protocol.window.stride_s, settings)
        given.append([decider.feed(*row) for row in zip(each.ends_s.tolist(), each.probabilities, strict=True)])
    return given


def play(protocol: ProtocolSpec, data: Path, rotation: int, rounds: int) -> list[Played]:
    """The test recordings of a rotation, classified by what is learned from the others."""
    arena = read_arena(protocol, rotation, data)
    method = build(Method, {**plain(Method()), **protocol.method})
    plan = plan_for(arena, method, rounds=rounds, seed=0)
    contender = PooledAutoencoder(arena, plan)
    for number in range(rounds):
        contender.close(number, {each.name: {} for each in arena.devices})
    names = [each.name for each in arena.modalities]
    labelled = arena.datasets.labelled
    assert labelled is not None, "every protocol has labelled recordings"

    def features(arrays: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        [embedded] = contender.embed(arrays)
        return np.concatenate([embedded[each] for each in names], axis=1)

    classifier = fit_classifier(features(dict(labelled.arrays)), labelled.labels, len(protocol.classes))
    played = []
    for name, recording in read_test(protocol, rotation, data).items():
        ends_s, windows = (
            _ends_s(protocol, recording),
            windows_of(recording, protocol.modalities, protocol.window, protocol.classes),
        )
        if len(windows):
            arrays = {each: plan.scaling[each].normalise(windows.arrays[each]) for each in names}
            scores = (features(arrays) @ classifier.weight.T + classifier.bias).astype(np.float64)
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            played.append(Played(name=name, ends_s=ends_s, labels=windows.labels, probabilities=shares))
    return played


def _ends_s(protocol: ProtocolSpec, recording: Recording) -> NDArray[np.float64]:
    """When its windows end; a segment begins long after the one before, as nobody knows when it was."""
    ends_s: list[float] = []
    for segment in recording.segments:
        windower = Windower(protocol.modalities, protocol.window, rated=False)
        blocks = segment.blocks([each.name for each in protocol.modalities], 60.0)
        own = [window.start_s + protocol.window.window_s for block in blocks for window in windower.feed(block)]
        after_s = ends_s[-1] + 3600 - own[0] if ends_s and own else 0.0
        ends_s += [each + after_s for each in own]
    return np.array(ends_s)


def _said(protocol: ProtocolSpec, played: Sequence[Played], told: Sequence[Sequence[str | None]], hours: float) -> Said:
    classes = len(protocol.classes)
    # Nothing sure is no class that ever occurs.
    answers = [
        np.array([classes if each is None else protocol.classes.index(each) for each in row], dtype=np.int64)
        for row in told
    ]
    truth_N, answer_N = np.concatenate([each.labels for each in played]), np.concatenate(answers)
    scored = truth_N != UNLABELLED
    changes = [_changes(each, row) for each, row in zip(played, answers, strict=True)]
    return Said(
        weighted_f1=weighted_f1(truth_N[scored], answer_N[scored], classes + 1),
        changes_per_h=sum(every for every, _ in changes) / hours,
        false_changes_per_h=sum(false for _, false in changes) / hours,
        unsure=float((answer_N[scored] == classes).mean()),
    )


def _changes(played: Played, answer_N: NDArray[np.int64]) -> tuple[int, int]:
    """How often what is said changes, and how often without a change of the label nearby, however long it may take."""
    changed_s = played.ends_s[1:][answer_N[1:] != answer_N[:-1]]
    true_s = played.ends_s[1:][played.labels[1:] != played.labels[:-1]]
    near = np.abs(changed_s[:, None] - true_s[None, :]).min(axis=1, initial=np.inf) <= NEAR_S
    return len(changed_s), int((~near).sum())


def _falls(how: str, played: Sequence[Played], told: Sequence[bool]) -> Falls:
    of = {kind: [row for row, each in zip(told, played, strict=True) if each.name.startswith(kind)] for kind in KINDS}
    fell, daily = of["fall"], of["adl"]
    return Falls(how=how, falls=sum(fell), of_falls=len(fell), daily=sum(daily), of_daily=len(daily))


def show_decide(data: Path | None, *, as_json: bool, quick: bool, out: TextIO) -> int:
    """Print what decisions make of single windows.

    Raises:
        SensorError: when recordings are missing.
    """
    folder = data_folder(data)
    outcomes = [measure(name, folder, rounds=1 if quick else ROUNDS) for name in DECIDED]
    if as_json:
        print(json.dumps([plain(each) for each in outcomes]), file=out)
        return 0
    print("\n".join(table(outcomes)), file=out)
    return 0


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Markdown."""
    lines = [
        "| recordings | said by | weighted F1 | changes an hour | of them false | not sure |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for each in outcomes:
        rows = {"single windows": each.windows, "decisions": each.decided, f"least_s = {CALM_S:g}": each.calm}
        for how, said in rows.items():
            lines.append(
                f"| {each.protocol}, {each.recordings}, {each.hours:.2f} h | {how} | {said.weighted_f1:.3f} | "
                f"{said.changes_per_h:.0f} | {said.false_changes_per_h:.0f} | {said.unsure:.1%} |"
            )
    for each in outcomes:
        for found in each.falls:
            lines.append(
                f"- {each.protocol}, {found.how}: told in {found.falls} of {found.of_falls} falls and in {found.daily} "
                f"of {found.of_daily} sequences of daily life."
            )
    return lines
