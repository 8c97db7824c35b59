"""How often two releases say the same of what was recorded, by onnxruntime alone."""

from collections.abc import Sequence
from pathlib import Path

from edge.runtime import Runtime
from export.release import Release
from mekt import catalogue
from mekt.errors import SensorError
from sensors.recording import read_recording
from sensors.windows import windows_of


def agreement(one: Release, other: Release, recordings: Sequence[Path]) -> tuple[dict[str, float], int]:
    """Per classifier that both have, of how many percent of windows both name the same class; and how many windows.

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
    found = {}
    for name in sorted(set(runtimes[0].classifiers) & set(runtimes[1].classifiers)):
        if runtimes[0].takes(name) == runtimes[1].takes(name):
            said = [
                [
                    each.manifest.labels[index]
                    for index in each.classify(windows.arrays, name).probabilities.argmax(axis=1)
                ]
                for each in runtimes
            ]
            found[name] = 100 * sum(a == b for a, b in zip(*said, strict=True)) / len(windows)
    return found, len(windows)
