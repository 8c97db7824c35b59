"""How much releases of one federation agree on recordings, as wearables would find in their self-tests.

    mekt demo --rounds 20 --agents 3 --seed 0 --data ../shared/data --out out/agreement
    python -m tests.proofs.agreement out/agreement/state/releases ../shared/data/hapt/user2[6-9].npz ...

After every 40th window of each recording, the windows that a wearable would have then (`edge.updates.recent`) are
classified by two releases, where they are enough for a self-test. docs/updates.md has what comes of it, and the limits
of `[updates.self_test]` come from there.
"""

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edge.runtime import Runtime
from edge.updates.recent import Recent
from edge.updates.selftest import agreement, sure_agreement
from edge.updates.settings import Limits
from edge.updates.trial import WINDOWS
from export.release import Release, read_release
from sensors.recording import read_recording
from sensors.source import Floats
from sensors.windows import windows_of

EVERY = 40
LIMITS = Limits()
DRAWS = 12
SEEN = (3, 8, 16)
Change = Callable[[Floats, np.random.Generator], Floats]


@dataclass(frozen=True)
class Said:
    """What a release says of each window of a recording."""

    labels: list[str]
    certain: Floats


@dataclass(frozen=True)
class Judged:
    """A self-test: agreement, that of sure windows, confidence against that before; how often classes were seen."""

    mean: float
    sure: float | None
    confidence: float
    seen: Counter[str]


def said(release: Release, arrays: Sequence[dict[str, Floats]]) -> list[Said]:
    """Of every recording."""
    runtime = Runtime(release)
    best = [runtime.classify(each).best for each in arrays]
    return [Said([label for label, _ in each], np.array([p for _, p in each], np.float32)) for each in best]


def tests_of(old: Said) -> Iterator[tuple[int, list[int]]]:
    """When a wearable which runs that release could have had a self-test, and the windows of it, by number."""
    recent = Recent()
    for at, label in enumerate(old.labels):
        if at >= LIMITS.windows and at % EVERY == 0 and recent.classes >= LIMITS.classes:
            yield at, [int(each) for group in recent.groups() for each in group["at"][:, 0]]
        recent.add({"at": np.array([at], np.float32)}, label)


def compare(name: str, pairs: Sequence[tuple[list[Said], list[Said]]]) -> str:
    """A row of the table."""
    return row(name, [each for olds, news in pairs for each in judged(olds, news)])


def judged(olds: Sequence[Said], news: Sequence[Said]) -> Iterator[Judged]:
    """Every self-test of the one release beside the other."""
    for old, new in zip(olds, news, strict=True):
        both = frozenset(old.labels) | frozenset(new.labels)
        for _, rows in tests_of(old):
            before, now = ([(each.labels[row], float(each.certain[row])) for row in rows] for each in (old, new))
            mean = agreement([label for label, _ in before], [label for label, _ in now], both)
            if mean is not None:
                sure = sure_agreement(before, now, both, LIMITS.sure_percent / 100)
                confidence = float(new.certain[rows].mean() / old.certain[rows].mean())
                yield Judged(mean, sure, confidence, Counter(label for label, _ in before))


def row(name: str, tests: Sequence[Judged]) -> str:
    """Agreement at its lowest, 5 %, median, 95 %, highest; what passes by it, and by the agreement of sure ones too."""
    by_mean = [100 * each.mean >= LIMITS.agreement_percent for each in tests]
    by_sure = [each.sure is None or 100 * each.sure >= LIMITS.agreement_percent for each in tests]
    shares = ", ".join(f"{float(np.quantile([each.mean for each in tests], q)):.2f}" for q in (0, 0.05, 0.5, 0.95, 1))
    passed = sum(one and other for one, other in zip(by_mean, by_sure, strict=True))
    surer = [each.confidence for each in tests]
    return (
        f"| {name} | {len(tests):,} | {shares} | {sum(by_mean) / len(tests):.1%} | {passed / len(tests):.2%} "
        f"| {min(surer):.2f}, {float(np.median(surer)):.2f} |"
    )


def swapped(olds: Sequence[Said], news: Sequence[Said], labels: Sequence[str], least: int) -> list[Judged]:
    """Of all pairs of classes that change places, the self-tests that saw one of the two so often."""
    found: list[Judged] = []
    for one, other in itertools.combinations(labels, 2):
        places = {one: other, other: one}
        changed_places = [replace(each, labels=[places.get(label, label) for label in each.labels]) for each in news]
        found += [each for each in judged(olds, changed_places) if max(each.seen[one], each.seen[other]) >= least]
    return found


def later(olds: Sequence[Said]) -> str:
    """How sure a release is of any 64 windows after a self-test, against how sure it was in that."""
    ratios = [
        float(old.certain[begin : begin + WINDOWS].mean() / old.certain[rows].mean())
        for old in olds
        for at, rows in tests_of(old)
        for begin in range(at, len(old.labels) - WINDOWS, WINDOWS // 4)
    ]
    return f"confidence in a trial to that in the self-test: {min(ratios):.2f} to {max(ratios):.2f} ({len(ratios):,})"


def changed(release: Release, kind: str, change: Change, rng: np.random.Generator) -> Release:
    """A release in whose models of this kind every weight was changed so."""
    models = dict(release.models)
    for name in [each for each in models if each.startswith(kind)]:
        model = onnx.load_from_string(models[name])
        for tensor in model.graph.initializer:
            weight = numpy_helper.to_array(tensor)
            if weight.dtype == np.float32 and weight.size > 1:
                tensor.CopyFrom(numpy_helper.from_array(change(weight, rng), tensor.name))
        models[name] = model.SerializeToString()
    return replace(release, models=models)


def scrambled(weight: Floats, rng: np.random.Generator) -> Floats:
    """Noise of the same mean and spread."""
    return rng.normal(weight.mean(), weight.std() + 1e-9, weight.shape).astype(np.float32)


def constant(weight: Floats, rng: np.random.Generator) -> Floats:
    """A classifier that says always the same."""
    fixed = np.zeros_like(weight)
    if weight.ndim == 1:
        fixed[int(rng.integers(len(weight)))] = 5
    return fixed


def main(folder: Path, recordings: Sequence[Path]) -> None:
    """Print the table's rows."""
    releases = [read_release(path) for path in sorted(folder.glob("*.zip"))]
    manifest = releases[-1].manifest
    played = [read_recording(path) for path in recordings]
    arrays = [windows_of([each], manifest.modalities, manifest.window).arrays for each in played]
    print(f"{len(releases)} releases, {sum(len(next(iter(each.values()))) for each in arrays):,} windows")
    by_round = [said(each, arrays) for each in releases]
    last = len(releases) - 1
    print(compare("each round -> the next", list(itertools.pairwise(by_round[1:]))))
    for old, new in ((0, 1), (1, 2), (0, last), (2, last), (last // 4, last), (last // 2, last), (last, 2)):
        print(compare(f"{old} -> {new}", [(by_round[old], by_round[new])]))
    for least in SEEN:
        tests = swapped(by_round[last // 2], by_round[last], manifest.labels, least)
        print(row(f"{last // 2} -> {last}, two classes in each other's place, one seen {least} times or more", tests))
    print(later(by_round[-1]))
    rng = np.random.default_rng(0)
    broken: dict[str, tuple[str, Change]] = {
        "random classifier": ("classifier", scrambled),
        "random encoders": ("encoder", scrambled),
        "always the same class": ("classifier", constant),
    }
    for name, (kind, change) in broken.items():
        made = [said(changed(releases[-1], kind, change, rng), arrays) for _ in range(DRAWS)]
        print(compare(name, [(by_round[-1], each) for each in made]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
