"""A round's release made ready for wearables with what the coordinator has: its proxy set and its labelled recordings.

Recordings kept apart for scores are not even read.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from coordinator.datasets import labelled_windows, plan_of, read_datasets
from coordinator.judging import NO_FOLD, Judges, folds
from coordinator.settings import FederationSettings
from export.finish import finish
from export.release import Release
from sensors.windows import UNLABELLED, WindowSet


def finished(settings: FederationSettings, base: Path, release: Release) -> Release:
    """The release with all the forms that serve it, unsigned; relative paths of recordings start at `base`.

    Raises:
        ReleaseError: when the release is of other modalities or windows than the settings.
        SensorError: when a recording cannot be read or lacks a modality.
        SettingsError: when a recording is not there, or gives too few windows.
    """
    public = replace(settings, labelled=(), test=())
    datasets = read_datasets(public, base)
    windows, recording_N = labelled_windows(settings, base, release.manifest.labels)
    if len(windows) == 0:
        # What nobody can judge is left out.
        windows = WindowSet(arrays=datasets.proxy, labels=np.full(datasets.proxy_windows, UNLABELLED))
        recording_N = np.zeros(datasets.proxy_windows, dtype=np.int64)
    folds_N = folds(recording_N, windows.labels)
    judges = Judges(release, plan_of(public, datasets, ""), windows, folds_N)
    labels_N = np.where(folds_N == NO_FOLD, UNLABELLED, windows.labels)
    return finish(release, datasets.proxy, windows.arrays, labels_N, judges)
