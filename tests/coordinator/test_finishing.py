"""What the coordinator has suffices to finish a release, with labelled recordings and without."""

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.finishing import finished
from export.release import Release, read_release
from mekt.errors import ReleaseError, SettingsError
from tests.coordinator.conftest import settings_of
from tests.export.small import ACC, GYRO, parts_of


@pytest.fixture
def release(tmp_path: Path) -> Release:
    parts_of(ACC, GYRO).write(tmp_path / "release.zip")
    return read_release(tmp_path / "release.zip")


def test_a_release_is_finished_with_the_coordinators_own_recordings(people: Path, release: Release) -> None:
    for settings in (settings_of(), settings_of(labelled=(), test=())):
        made = finished(settings, people, release)
        assert made.manifest.measured is not None and set(made.models) >= set(release.models)
        if not settings.labelled:
            assert set(made.models) == set(release.models), "what nobody can judge is left out"


def test_a_release_of_other_windows_is_refused(people: Path, release: Release) -> None:
    settings = settings_of()
    longer = replace(settings, window=replace(settings.window, window_s=2.0))
    with pytest.raises(ReleaseError, match="expected an array"):
        finished(longer, people, release)


def test_a_recording_that_is_gone_is_named(tmp_path: Path, release: Release) -> None:
    with pytest.raises(SettingsError, match=r"proxy.npz"):
        finished(settings_of(), tmp_path, release)
