"""What a wearable does: a source's samples into windows, windows into classes, one line for each window."""

import json
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

from edge.turns import is_played, sources_of
from edge.wearable.readers import Together
from edge.wearable.recogniser import Recognised, Recogniser, usable
from export.manifest import Manifest
from export.release import Release, read_trusted_release
from mekt import catalogue
from mekt.errors import SensorError
from mekt.schema import Bounds
from mekt.settings import read_toml
from sensors.settings import SensorSettings
from sensors.source import Source

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
    """A settings file that describes sources: a `[[sensors]]` table each."""

    sensors: Annotated[tuple[SensorSettings, ...], Bounds(shortest=1, longest=16)]

    def __post_init__(self) -> None:
        names = [name for each in self.sensors for name in each.modalities]
        if len(set(names)) != len(names):
            raise ValueError("sensors: two of them give the same modality; name each once")


def run_infer(
    release: Path,
    source: Path,
    *,
    modalities: Sequence[str] | None = None,
    speed: float = 0.0,
    as_json: bool = False,
    trust: Path | None = None,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Classify what `source` senses until it ends, one line per window to `out`; the exit code.

    `source` is a recording (`.npz`), played `speed` times faster than real time (0: as fast as it is read), or a
    settings file (`.toml`) with `[[sensors]]` tables. Only `modalities` are used, by default all. With `trust`, the
    file of the coordinator's public key, the release must be signed with it, and no older than any before: that is
    remembered in a file beside the key.

    Raises:
        ReleaseError: when the release is damaged or has no classifier for what is sensed.
        SensorError: when the source cannot be read, gives no window, or is not what the release was trained on.
        SettingsError: when the settings file cannot work.
    """
    out = sys.stdout if out is None else out
    err = sys.stderr if err is None else err
    loaded = read_trusted_release(release, trust)
    opened = _source(source, loaded.manifest, modalities, speed)
    count = 0
    for verdict in verdicts(loaded, opened, err, modalities):
        print(verdict.json_line() if as_json else verdict.text_line(), file=out, flush=True)
        count += 1
    if count == 0:
        window_s = loaded.manifest.window.window_s
        raise SensorError(
            f"{source}: gave no window; it must sense {window_s:g} s or more without a hole", catalogue.SENSOR_SILENT
        )
    return 0


def verdicts(
    release: Release, source: Source, err: TextIO, modalities: Collection[str] | None = None
) -> Iterator[Verdict]:
    """A verdict for each window of `source`, as soon as it is complete. Opens and closes the source.

    The classifier is the one that uses most of what covers the window; what that leaves out is said to `err`, once and
    whenever it changes: a modality that falls behind is waited for `WAIT_S`, then done without until it is back.

    Raises:
        ReleaseError: when no classifier suffices for what the source senses.
        SensorError: when the source fails or does not fit the release.
    """
    sensed = usable(source.modalities, release.manifest, modalities)
    recogniser = Recogniser(release, sensed, lambda words: print(words, file=err, flush=True))
    source.open()
    try:
        while (items := source.read(READ_S)) is not None:
            for item in items:
                yield from map(_verdict, recogniser.feed(item))
        yield from map(_verdict, recogniser.finish())
    finally:
        source.close()


def _verdict(found: Recognised) -> Verdict:
    [(label, probability)] = found.decisions.best
    return Verdict(
        start_s=found.start_s,
        label=label,
        probability=probability,
        latency_ms=found.latency_ms,
        modalities=found.decisions.modalities,
    )


def _source(path: Path, manifest: Manifest, modalities: Sequence[str] | None, speed: float) -> Source:
    def useful(names: Iterable[str]) -> list[str]:
        """Only what is useful is opened: a camera that nobody asks must keep nothing waiting."""
        return [
            each for each in names if manifest.encoder(each) is not None and (modalities is None or each in modalities)
        ]

    if path.suffix == ".toml":
        sensors = [each for each in read_toml(path, SourceSettings).sensors if useful(each.modalities)]
        if sensors:
            sources = sources_of(sensors, path.parent)
            return sources[0] if all(map(is_played, sensors)) else Together(sources)
    else:
        from sensors.recording import read_recording
        from sensors.replay import ReplaySource

        recording = read_recording(path, modalities)
        if names := useful(each.name for each in recording.modalities):
            return ReplaySource(recording, names, speed=speed or math.inf)
    known = ", ".join(each.name for each in manifest.modalities)
    raise SensorError(
        f"{path}: senses none of the release's modalities {known}; use a source that does", catalogue.MODALITY_MISSING
    )
