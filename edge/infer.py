"""What a wearable does: a source's samples into windows, windows into classes, one line for each window."""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

from edge.runtime import Runtime
from export.release import Release, read_release
from mekt.errors import SensorError
from mekt.modality import Modality
from mekt.schema import Bounds
from mekt.scores import weighted_f1
from mekt.settings import read_toml
from sensors.recording import read_recording
from sensors.replay import ReplaySource
from sensors.settings import SensorSettings, open_source
from sensors.source import Block, Gap, Source
from sensors.windows import Windower, WindowSet

READ_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is said about one window: its start on the source's clock, the class, and how long the answer took."""

    start_s: float
    label: str
    probability: float
    latency_ms: float
    modalities: tuple[str, ...]

    def json_line(self) -> str:
        """For machines."""
        return json.dumps(
            {
                "start_s": round(self.start_s, 6),
                "label": self.label,
                "probability": round(self.probability, 6),
                "latency_ms": round(self.latency_ms, 3),
                "modalities": self.modalities,
            }
        )

    def text_line(self) -> str:
        """For people."""
        sensed = ", ".join(self.modalities)
        return f"{self.start_s:10.2f} s  {self.label:<24} {self.probability:6.1%}  {self.latency_ms:6.1f} ms  {sensed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSettings:
    """A settings file that describes a source: one `[[sensors]]` table."""

    sensors: Annotated[tuple[SensorSettings, ...], Bounds(shortest=1, longest=1)]


def run_infer(
    release: Path,
    source: Path,
    *,
    modalities: Sequence[str] | None = None,
    speed: float = 0.0,
    as_json: bool = True,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Classify what `source` senses until it ends, one line per window to `out`; the exit code.

    `source` is a recording (`.npz`), played `speed` times faster than real time (0: as fast as it is read), or a
    settings file (`.toml`) with one `[[sensors]]` table. Only `modalities` are used, by default all.

    Raises:
        ReleaseError: when the release is damaged or has no classifier for what is sensed.
        SensorError: when the source cannot be read or is of another kind than what the release was trained on.
        SettingsError: when the settings file cannot work.
    """
    out = sys.stdout if out is None else out
    err = sys.stderr if err is None else err
    loaded = read_release(release)
    opened = _open(source, loaded, modalities, speed)
    count = 0
    for verdict in verdicts(loaded, opened, err):
        print(verdict.json_line() if as_json else verdict.text_line(), file=out, flush=True)
        count += 1
    if count == 0:
        window_s = loaded.manifest.window.window_s
        raise SensorError(f"{source}: gave no window; it must sense {window_s:g} s or more without a hole")
    return 0


def verdicts(release: Release, source: Source, err: TextIO) -> Iterator[Verdict]:
    """A verdict for each window of `source`, as soon as it is complete. Opens and closes the source.

    Raises:
        ReleaseError: when no classifier suffices for what the source senses.
        SensorError: when the source fails or does not fit the release.
    """
    manifest = release.manifest
    there = {each.name: each for each in source.modalities}
    for modality in manifest.modalities:
        if modality.name in there:
            _same_kind(there[modality.name], modality)
    runtime = Runtime(release, sorted(there))
    classifier = runtime.classifiers[0]
    used = runtime.takes(classifier)
    missing = sorted({each.name for each in manifest.modalities} - there.keys())
    if missing:
        print(f"without {', '.join(missing)}: classifying by {', '.join(used)} alone", file=err, flush=True)
    windower = Windower([each for each in manifest.modalities if each.name in used], manifest.window)
    source.open()
    try:
        while (items := source.read(READ_S)) is not None:
            for item in items:
                match item:
                    case Gap():
                        windower.gap()
                    case Block():
                        windows = windower.feed(item)
                        if windows is None:
                            continue
                        began_s = time.perf_counter()
                        decisions = runtime.classify(windows.arrays, classifier)
                        latency_ms = 1000 * (time.perf_counter() - began_s)
                        for start_s, (label, probability) in zip(windows.start_s.tolist(), decisions.best, strict=True):
                            yield Verdict(
                                start_s=start_s,
                                label=label,
                                probability=probability,
                                latency_ms=latency_ms,
                                modalities=decisions.modalities,
                            )
    finally:
        source.close()


def evaluate(release: Path, windows: WindowSet) -> dict[str, float]:
    """Per classifier that `windows` have the modalities for, the weighted F1 on the labelled ones among them.

    The windows' class indexes must be those of the release's labels.

    Raises:
        ReleaseError: when the release is damaged, or has no classifier for these modalities.
        SensorError: when the windows are not of the release's shape, or none is labelled.
    """
    loaded = read_release(release)
    labelled = windows.select(windows.labels != UNLABELLED)
    if len(labelled) == 0:
        raise SensorError("no window is labelled; name recordings with labels")
    runtime = Runtime(loaded, sorted(windows.arrays))
    scores = {}
    for name in sorted(runtime.classifiers):
        answers = runtime.classify(labelled.arrays, name).probabilities.argmax(axis=1)
        scores[name] = weighted_f1(labelled.labels, answers, len(loaded.manifest.labels))
    return scores


def _open(path: Path, release: Release, modalities: Sequence[str] | None, speed: float) -> Source:
    if path.suffix == ".toml":
        [settings] = read_toml(path, SourceSettings).sensors
        return open_source(settings, path.parent)
    recording = read_recording(path, modalities)
    known = {each.name for each in release.manifest.modalities}
    names = [each.name for each in recording.modalities if each.name in known]
    if not names:
        raise SensorError(f"{path}: has none of the release's modalities {', '.join(sorted(known))}")
    return ReplaySource([recording], names, speed=speed or math.inf)


def _same_kind(sensed: Modality, trained: Modality) -> None:
    if sensed.shape != trained.shape or sensed.unit != trained.unit:
        raise SensorError(
            f"{sensed.name}: the source gives {sensed.shape} in {sensed.unit!r}, the release was trained on "
            f"{trained.shape} in {trained.unit!r}; use the sensor that it was trained for"
        )
