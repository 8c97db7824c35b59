"""A round's release made ready for wearables with what the coordinator has: its proxy set and its labelled recordings.

Whether a smaller form of an encoder costs too much is told on the labelled windows, which the classifiers were fitted
on; those kept apart for scores decide nothing here either.
"""

from pathlib import Path

import numpy as np

from coordinator.datasets import read_datasets
from coordinator.settings import FederationSettings, recordings
from export.finish import finish
from export.release import Release
from sensors.recording import read_recording
from sensors.windows import windows_of


def finished(settings: FederationSettings, base: Path, release: Release) -> Release:
    """The release with all the forms that serve it, unsigned; relative paths of recordings start at `base`.

    Raises:
        ReleaseError: when the release is of other modalities or windows than the settings.
        SensorError: when a recording cannot be read or lacks a modality.
        SettingsError: when a recording is not there, or gives too few windows.
    """
    proxy = read_datasets(settings, base).proxy
    names = [each.name for each in settings.modalities]
    played = [read_recording(path, names) for path in recordings(settings, base, "labelled")]
    if not played:
        count = len(next(iter(proxy.values())))
        return finish(release, proxy, proxy, np.full(count, -1, dtype=np.int64))
    windows = windows_of(played, settings.modalities, settings.window, release.manifest.labels)
    return finish(release, proxy, windows.arrays, windows.labels)
