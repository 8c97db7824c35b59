"""How good a release is on labelled recordings, by onnxruntime alone: what a wearable would have said."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.runtime import Runtime
from export.release import read_trusted_release
from mekt import catalogue
from mekt.errors import SensorError
from mekt.scores import weighted_f1
from sensors.recording import read_recording
from sensors.windows import UNLABELLED, windows_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseScores:
    """Per classifier its weighted F1, all of them on the same labelled windows."""

    windows: int
    weighted_f1: dict[str, float]


def score_release(release: Path, recordings: Sequence[Path], trust: Path | None = None) -> ReleaseScores:
    """The scores of every classifier that the recordings have the modalities for, over their labelled windows.

    A window counts when all of the release's modalities that every recording has are there, so that classifiers are
    compared on equal terms. The classes are the release's; windows with a label that it does not know are left out,
    as those without a label are. `trust` is the file of the coordinator's public key, where the release has to be its.

    Raises:
        ReleaseError: when the release is damaged, or has no classifier for these modalities.
        SensorError: when a recording cannot be read or is not what the release was trained on, or no window is left.
    """
    loaded = read_trusted_release(release, trust)
    manifest = loaded.manifest
    played = [read_recording(path) for path in recordings]
    shared = [
        each
        for each in manifest.modalities
        if all(each.name in {there.name for there in recording.modalities} for recording in played)
    ]
    if not played or not shared:
        known = ", ".join(each.name for each in manifest.modalities)
        raise SensorError(
            f"no modality of the release is in every recording; name recordings that have {known}",
            catalogue.MODALITY_MISSING,
        )
    runtime = Runtime(loaded, [each.name for each in shared])
    windows = windows_of(played, shared, manifest.window, manifest.labels)
    labelled = windows.select(windows.labels != UNLABELLED)
    if len(labelled) == 0:
        raise SensorError(
            f"no window is labelled with one of the release's classes {', '.join(manifest.labels)}; "
            "name recordings of these",
            catalogue.NO_LABEL_OF_THE_RELEASE,
        )
    scores = {
        name: weighted_f1(
            labelled.labels, runtime.classify(labelled.arrays, name).probabilities.argmax(axis=1), len(manifest.labels)
        )
        for name in sorted(runtime.classifiers)
    }
    return ReleaseScores(windows=len(labelled), weighted_f1=scores)
