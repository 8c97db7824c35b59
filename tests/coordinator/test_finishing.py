"""What the coordinator has suffices to finish a release, with labelled recordings and without."""

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.finishing import finished
from export.release import Release, read_release
from mekt.errors import ReleaseError, SettingsError
from sensors.recording import write_recording
from sensors.simulator import simulate
from tests.coordinator.conftest import settings_of
from tests.export.small import ACC, GYRO, parts_of

SETTINGS = settings_of(labelled=("labelled-1.npz", "labelled-2.npz"))


@pytest.fixture(scope="module")
def two_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings, two of them labelled and long enough to judge by."""
    folder = tmp_path_factory.mktemp("people")
    for name, subject, duration_s in (("proxy", 1, 30.0), ("labelled-1", 2, 90.0), ("labelled-2", 4, 90.0)):
        write_recording(folder / f"{name}.npz", simulate(subject, seed=1, duration_s=duration_s))
    return folder


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    path = tmp_path_factory.mktemp("releases") / "release.zip"
    parts_of(ACC, GYRO).write(path)
    return read_release(path)


def test_a_release_is_finished_with_the_coordinators_own_recordings_and_no_others(
    two_people: Path, release: Release
) -> None:
    """What is kept apart for scores is not even read: it need not be there."""
    made = finished(replace(SETTINGS, test=("gone.npz",)), two_people, release)
    assert made.manifest.measured is not None and set(made.models) > set(release.models)
    assert any(each.int8 is not None for each in made.manifest.encoders)


def test_what_nobody_can_judge_is_left_out(two_people: Path, release: Release) -> None:
    made = finished(settings_of(labelled=(), test=()), two_people, release)
    assert made.manifest.measured is not None and set(made.models) == set(release.models)


def test_a_release_of_other_windows_is_refused(two_people: Path, release: Release) -> None:
    longer = replace(SETTINGS, window=replace(SETTINGS.window, window_s=2.0))
    with pytest.raises(ReleaseError, match="expected an array"):
        finished(longer, two_people, release)


def test_a_recording_that_is_gone_is_named(tmp_path: Path, release: Release) -> None:
    with pytest.raises(SettingsError, match=r"proxy.npz"):
        finished(SETTINGS, tmp_path, release)
