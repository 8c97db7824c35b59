"""A new release tried on a wearable's own recent windows, beside the one at work, before it may take its place.

It runs in a process of its own (`mekt.attempt`): what crashes there, hangs or takes too much memory does so there. No
labels are needed: the release at work is right more often than not, so a new one that is better agrees with it mostly,
and one that is broken does not. A better one is also free to differ where either is in doubt; where both are sure and
differ about a whole class, one of them is broken.

Shapes: N windows, T samples.
"""

import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from edge.runtime import Runtime
from edge.updates.machine import Figures
from edge.updates.recent import FEWEST_OF_A_CLASS
from edge.updates.settings import Limits
from export.release import Release, read_release
from mekt import catalogue
from mekt.attempt import Attempt, Died, Done, Hung, Outcome, Refused
from mekt.errors import MektError, ReleaseError, SensorError
from mekt.messages import Unfit, unpack
from sensors.source import Floats

log = logging.getLogger(__name__)

# A window is timed so often, one by one.
TIMED = 50
# Of so many windows of one class at least that both releases are sure of it can be said that they differ about it.
FEWEST_SURE = 6
MEGABYTE = 1024 * 1024
# What a process that has loaded the libraries may ask the kernel for on top of the memory limit: their own arenas.
ROOM_MB = 256
NICE = 10
LARGEST_LATENCY_US = 10_000_000

# A class, "" for none, and its probability.
Best = tuple[str, float]
NOTHING: Best = ("", 0.0)


class SelfTest:
    """A test under way. The thread that began it need not be the one that waits for its end."""

    def __init__(self, new: Path, old: Path | None, groups: Sequence[Mapping[str, Floats]], limits: Limits) -> None:
        """Begin to try the release in the file `new` beside that in `old`, on windows `groups` (N, T, ...)."""
        self._limits = limits
        words = (str(new), "" if old is None else str(old), limits.memory_mb, limits.seconds, limits.sure_percent)
        self._attempt = Attempt("release", *map(str, words), given=_packed(groups))

    def stop(self) -> None:
        """End it; any thread may. Whoever waits for its end has it then."""
        self._attempt.stop()

    def result(self) -> tuple[Unfit, Figures]:
        """Wait for its end: why the release is refused, or "", and what was measured."""
        outcome = self._attempt.outcome(self._limits.seconds)
        if not isinstance(outcome, Done):
            log.warning("the self-test did not come to its end: %s", outcome)
        return judged(outcome, self._limits)


def judged(outcome: Outcome, limits: Limits) -> tuple[Unfit, Figures]:
    """What the end of a test says about the release."""
    match outcome:
        case Done(facts=facts):
            return _judged(facts, limits)
        case Refused(error="MemoryError"):
            return "memory", Figures()
        case Refused(entry=catalogue.RELEASE_HAS_NO_CLASSIFIER):
            return "unfit", Figures()
        case Refused(entry=catalogue.RELEASE_TOO_NEW):
            return "too-new", Figures()
        case Refused(entry=catalogue.RELEASE_DAMAGED | catalogue.RELEASE_MISSING | catalogue.RELEASE_UNREADABLE):
            # It was whole when it came.
            return "disk", Figures()
        case Refused():
            return "does-not-run", Figures()
        case Died(how="SIGKILL"):
            # Only the kernel does that, when the whole machine has no memory left.
            return "memory", Figures()
        case Died():
            return "crashed", Figures()
        case Hung():
            return "slow", Figures()


def _judged(facts: Mapping[str, Any], limits: Limits) -> tuple[Unfit, Figures]:
    new, old, agreement, sure = facts["new"], facts["old"], facts["agreement"], facts["sure_agreement"]
    figures = Figures(
        agreement_percent=None if agreement is None else round(100 * agreement),
        confidence_percent=None if new["confidence"] is None else round(100 * new["confidence"]),
        latency_us=min(round(1000 * new["latency_ms"]), LARGEST_LATENCY_US),
        memory_mb=min(round(facts["memory_mb"]), 65_535),
    )
    if not new["is_finite"]:
        return "does-not-run", figures
    if facts["memory_mb"] > limits.memory_mb:
        return "memory", figures
    slowest_ms = max(limits.latency_ms, limits.latency_ratio * (0.0 if old is None else old["latency_ms"]))
    if new["latency_ms"] > slowest_ms:
        return "slow", figures
    if any(share is not None and 100 * share < limits.agreement_percent for share in (agreement, sure)):
        return "disagrees", figures
    usual = 0.0 if old is None or old["confidence"] is None else old["confidence"]
    is_unsure = new["confidence"] is not None and 100 * new["confidence"] < limits.confidence_percent * usual
    return ("unsure" if is_unsure else ""), figures


def agreement(old: Sequence[str], new: Sequence[str], both: frozenset[str]) -> float | None:
    """In what share of windows two releases give the same class: the mean over the old one's classes.

    Only what both could have said counts, the classes in `both`, and of those only what was said often enough. None
    where nothing is left.
    """
    shares = _shares(zip(old, new, strict=True), both, FEWEST_OF_A_CLASS)
    return sum(shares) / len(shares) if shares else None


def sure_agreement(old: Sequence[Best], new: Sequence[Best], both: frozenset[str], sure: float) -> float | None:
    """The same of windows that both give a probability of `sure` at least, of the class that they agree least about."""
    certain = [
        (before, now) for (before, before_p), (now, now_p) in zip(old, new, strict=True) if min(before_p, now_p) >= sure
    ]
    return min(_shares(certain, both, FEWEST_SURE), default=None)


def _shares(pairs: Iterable[tuple[str, str]], both: frozenset[str], fewest: int) -> list[float]:
    """Of each class of the first that was said often enough: how often the second was the same."""
    same: dict[str, list[bool]] = {}
    for before, now in pairs:
        if before in both and now in both:
            same.setdefault(before, []).append(before == now)
    return [sum(each) / len(each) for each in same.values() if len(each) >= fewest]


# The other side


def tried(new: str, old: str, memory_mb: str, seconds: str, sure_percent: str, given: bytes) -> dict[str, Any]:
    """What a process of its own finds about the release in the file `new`, beside that in `old`.

    Raises:
        MektError: when it cannot be loaded, or does not run.
        MemoryError: when it asks for too much.
    """
    os.nice(NICE)
    # Whoever began this may be gone.
    signal.alarm(max(1, round(float(seconds)) + 1))
    _limit_memory(int(memory_mb))
    groups = _unpacked(given)
    try:
        release = read_release(Path(new))
        newer, said = _run(release, groups)
    except MektError as error:
        if _ran_out(error):
            raise MemoryError(str(error)) from error
        raise
    # Before the other one is loaded as well.
    resident_mb = _resident_mb()
    facts: dict[str, Any] = {"new": newer, "old": None, "agreement": None, "sure_agreement": None}
    former = _former(Path(old)) if old else None
    if former is not None:
        facts["old"], before = _run(former, groups)
        both = frozenset(release.manifest.labels) & frozenset(former.manifest.labels)
        facts["agreement"] = agreement([label for label, _ in before], [label for label, _ in said], both)
        facts["sure_agreement"] = sure_agreement(before, said, both, int(sure_percent) / 100)
    return {**facts, "memory_mb": resident_mb}


def _former(path: Path) -> Release | None:
    """The release at work; that its file is damaged by now is not the new one's fault."""
    try:
        return read_release(path)
    except ReleaseError:
        return None


def _run(release: Release, groups: Sequence[Mapping[str, Floats]]) -> tuple[dict[str, Any], list[Best]]:
    """A release's figures, and what it says of each window, nothing where the window is none of its."""
    # However often its wearer wants to look: no step model is run there that was not tried here.
    steps = {each.step.samples / each.modality.rate_hz for each in release.manifest.encoders if each.step is not None}
    runtime = Runtime(release, stride_s=min(steps, default=None))
    for other_s in sorted(steps)[1:]:
        Runtime(release, stride_s=other_s)
    said: list[Best] = []
    is_finite = True
    for arrays in groups:
        count = len(next(iter(arrays.values())))
        try:
            decisions = runtime.classify(arrays)
        except SensorError:
            said += [NOTHING] * count
            continue
        is_finite = is_finite and bool(np.isfinite(decisions.probabilities).all())
        said += decisions.best
    certain = [probability for label, probability in said if label]
    if not certain:
        # No window of its kind: at least it has to say something of nothing.
        groups = [_nothing(release)]
        is_finite = bool(np.isfinite(runtime.classify(groups[0]).probabilities).all())
    confidence = float(np.mean(certain)) if certain and is_finite else None
    return {"confidence": confidence, "is_finite": is_finite, "latency_ms": _latency_ms(runtime, groups)}, said


def _latency_ms(runtime: Runtime, groups: Sequence[Mapping[str, Floats]]) -> float:
    """The median time of a window, one at a time, as at work."""
    usable = [arrays for arrays in groups if runtime.choose(arrays) is not None]
    taken: list[float] = []
    for turn in range(TIMED):
        arrays = usable[turn % len(usable)]
        row = turn % len(next(iter(arrays.values())))
        began_s = time.perf_counter()
        try:
            runtime.classify({name: array[row : row + 1] for name, array in arrays.items()})
        except SensorError:
            continue
        taken.append(time.perf_counter() - began_s)
    return 1000 * float(np.median(taken)) if taken else 0.0


def _nothing(release: Release) -> dict[str, Floats]:
    window = release.manifest.window
    return {each.name: np.zeros((1, *window.shape(each)), dtype=np.float32) for each in release.manifest.modalities}


def _limit_memory(memory_mb: int) -> None:
    """Let this process grow by so much and no more. Where the kernel does not tell, it is measured all the same."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return
    most = pages * resource.getpagesize() + (memory_mb + ROOM_MB) * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _ran_out(error: BaseException) -> bool:
    """Whether onnxruntime says that there was no more memory; it has no exception of its own for that."""
    text = str(error)
    return isinstance(error, ReleaseError) and ("bad_alloc" in text or "Failed to allocate memory" in text)


def _resident_mb() -> float:
    """The most that this process held at a time. Of `getrusage` it would be what held whoever started it, if more."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:", 1)[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _packed(groups: Sequence[Mapping[str, Floats]]) -> bytes:
    packed: bytes = msgpack.packb(
        [{name: (array.shape, array.astype("<f4").tobytes()) for name, array in group.items()} for group in groups]
    )
    return packed


def _unpacked(raw: bytes) -> list[dict[str, Floats]]:
    return [
        {name: np.frombuffer(data, "<f4").reshape(shape) for name, (shape, data) in group.items()}
        for group in unpack(raw)
    ]
