"""How often two releases say the same of what was recorded, by onnxruntime alone, measured as a self-test does."""

from collections.abc import Sequence
from pathlib import Path

from edge.runtime import Runtime
from edge.updates.selftest import agreement
from export.release import Release
from mekt import catalogue
from mekt.errors import SensorError
from sensors.recording import read_recording
from sensors.windows import windows_of


def agreements(one: Release, other: Release, recordings: Sequence[Path]) -> tuple[dict[str, float], int]:
    """Per classifier that both have, their agreement in percent (`edge.updates.selftest`); and over how many windows.

    A classifier none of whose classes is said often enough is left out.

    Raises:
        ReleaseError: when one of them does not run.
        SensorError: when a recording cannot be read, or both cannot take the same windows of them.
    """
    played = [read_recording(path) for path in recordings]
    known = {each.name: each for each in other.manifest.modalities}
    shared = [
        each
        for each in one.manifest.modalities
        if known.get(each.name) == each and all(each.name in {has.name for has in made.modalities} for made in played)
    ]
    if not played or not shared or one.manifest.window != other.manifest.window:
        raise SensorError(
            f"{one.path} and {other.path} cannot take the same windows of these recordings; name recordings that have "
            "a modality which is alike in both, and releases whose windows are alike",
            catalogue.MODALITY_MISSING,
        )
    windows = windows_of(played, shared, one.manifest.window)
    if len(windows) == 0:
        raise SensorError("the recordings are shorter than a window; name longer ones", catalogue.WINDOWS_UNFIT)
    names = [each.name for each in shared]
    runtimes = [Runtime(release, names) for release in (one, other)]
    both = frozenset(one.manifest.labels) & frozenset(other.manifest.labels)
    found = {}
    for name in sorted(set(runtimes[0].classifiers) & set(runtimes[1].classifiers)):
        if runtimes[0].takes(name) == runtimes[1].takes(name):
            first, second = ([label for label, _ in each.classify(windows.arrays, name).best] for each in runtimes)
            share = agreement(first, second, both)
            if share is not None:
                found[name] = 100 * share
    return found, len(windows)
