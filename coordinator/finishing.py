"""A round's release made ready for wearables with what the coordinator has: its proxy set and its labelled recordings.

Recordings kept apart for scores are not even read.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from coordinator.datasets import plan_of, read_datasets
from coordinator.judging import NO_FOLD, Judges, folds
from coordinator.settings import FederationSettings, recordings
from export.finish import finish
from export.release import Release
from mekt.scores import Indexes
from sensors.recording import read_recording
from sensors.source import Floats
from sensors.windows import UNLABELLED, WindowSet, windows_of


def finished(settings: FederationSettings, base: Path, release: Release) -> Release:
    """The release with all the forms that serve it, unsigned; relative paths of recordings start at `base`.

    Raises:
        ReleaseError: when the release is of other modalities or windows than the settings.
        SensorError: when a recording cannot be read or lacks a modality.
        SettingsError: when a recording is not there, or gives too few windows.
    """
    public = replace(settings, labelled=(), test=())
    datasets = read_datasets(public, base)
    windows, recording_N = _labelled(settings, base, release) if settings.labelled else _unlabelled(datasets.proxy)
    folds_N = folds(recording_N, windows.labels)
    labels_N = np.where(folds_N == NO_FOLD, UNLABELLED, windows.labels)
    judges = Judges(release, plan_of(public, datasets, ""), windows, folds_N)
    return finish(release, datasets.proxy, windows.arrays, labels_N, judges)


def _labelled(settings: FederationSettings, base: Path, release: Release) -> tuple[WindowSet, Indexes]:
    """The windows of the labelled recordings, as sensed, in the order of their time, and the number of each one's."""
    names = [each.name for each in settings.modalities]
    played = [read_recording(path, names) for path in recordings(settings, base, "labelled")]
    cut = [windows_of(each, settings.modalities, settings.window, release.manifest.labels) for each in played]
    arrays = {name: np.concatenate([each.arrays[name] for each in cut]) for name in names}
    windows = WindowSet(arrays=arrays, labels=np.concatenate([each.labels for each in cut]))
    return windows, np.repeat(np.arange(len(cut)), [len(each) for each in cut])


def _unlabelled(proxy: dict[str, Floats]) -> tuple[WindowSet, Indexes]:
    """By these no form is kept."""
    count = len(next(iter(proxy.values())))
    return WindowSet(arrays=proxy, labels=np.full(count, UNLABELLED)), np.zeros(count, dtype=np.int64)
