"""A release is shipped only if it finds what the one before it found, or if a person says so all the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.classifier import fit_classifier
from coordinator.datasets import labelled_windows
from coordinator.promotion import opened, promote
from coordinator.regressions import LEAST_WINDOWS, regressions
from coordinator.rollouts import settled
from export.layers import Floats
from export.release import Release, read_release
from mekt import catalogue
from mekt.errors import ReleaseError
from mekt.modality import WindowSpec
from sensors.recording import write_recording
from sensors.simulator import simulate
from sensors.windows import WindowSet
from tests.coordinator.conftest import settings_of
from tests.export.small import ACC, FUSED, GYRO, LABELS, embeddings_of, parts_of

SETTINGS = settings_of(test=())
PARTS = parts_of(ACC, GYRO)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    for name, subject, duration_s in (("proxy", 1, 30.0), ("labelled", 2, 90.0)):
        write_recording(folder / f"{name}.npz", simulate(subject, seed=1, duration_s=duration_s))
    return folder


@pytest.fixture(scope="module")
def windows(base: Path) -> WindowSet:
    return labelled_windows(SETTINGS, base, LABELS)[0]


Make = Callable[..., Release]


@pytest.fixture(scope="module")
def make(windows: WindowSet, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Writes a release whose classifier of all modalities learned the labelled windows, its classes in this order."""
    rows = windows.labels >= 0
    embedded_ND = embeddings_of(PARTS.plan, PARTS.encoders, windows.arrays)
    features_NF: Floats = np.concatenate([embedded_ND["acc"], embedded_ND["gyro"]], axis=1)
    fitted = fit_classifier(features_NF[rows], windows.labels[rows], len(LABELS))

    def write(order: tuple[int, ...] = (0, 1, 2), path: Path | None = None, **changes: object) -> Release:
        path = path or tmp_path_factory.mktemp("releases") / "release.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        classifier = (("acc", "gyro"), fitted.weight[list(order)], fitted.bias[list(order)])
        replace(PARTS, classifiers={**PARTS.classifiers, FUSED: classifier}, **changes).write(path)  # type: ignore[arg-type]
        return read_release(path)

    return write


# What is found


def test_classes_that_changed_places_are_named_both(make: Make, windows: WindowSet) -> None:
    good = make()
    assert regressions(good, good, windows) == []
    found = regressions(good, make((0, 2, 1)), windows)
    assert [each.label for each in found] == ["stand", "walk"]
    assert all(each.before > 0.6 and each.after < 0.4 for each in found)
    assert regressions(make((0, 2, 1)), good, windows) == [], "that is an improvement"


def test_classes_are_compared_by_name(make: Make, windows: WindowSet) -> None:
    """The labels of the windows are the second release's."""
    renamed = make((0, 2, 1), labels=("sit", "walk", "stand"))
    order = np.array([0, 2, 1])
    again = WindowSet(arrays=windows.arrays, labels=np.where(windows.labels < 0, -1, order[windows.labels]))
    assert regressions(make(), renamed, again) == []
    assert regressions(make(), make(labels=("fall", "run", "jump")), windows) == [], "none is known to both"


def test_a_class_of_few_windows_tells_nothing(make: Make, windows: WindowSet) -> None:
    few = np.concatenate(
        [np.flatnonzero(windows.labels == 2)[: LEAST_WINDOWS - 1], np.flatnonzero(windows.labels == 1)]
    )
    found = regressions(make(), make((0, 2, 1)), windows.select(few))
    assert [each.label for each in found] == ["stand"]


def test_releases_of_other_windows_cannot_be_compared(make: Make, windows: WindowSet) -> None:
    longer = replace(PARTS.plan, window=WindowSpec(window_s=1.0, stride_s=0.25))
    assert regressions(make(), make((0, 2, 1), plan=longer), windows) == []


# What is done


def test_one_that_is_worse_is_shipped_only_when_a_person_says_so(make: Make, base: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    for name, order in (("ward-3-00001", (0, 1, 2)), ("ward-3-00002", (0, 2, 1))):
        make(order, state / "releases" / f"{name}.zip")
    assert promote(SETTINGS, base, state, "ward-3-00001", 1.0).progress.state == "everybody", "there is no other"
    with pytest.raises(ReleaseError, match=r"than ward-3-00001, which wearables run: stand \(.*%\), walk") as caught:
        promote(SETTINGS, base, state, "ward-3-00002", 0.5)
    assert caught.value.entry is catalogue.RELEASE_WORSE
    told = promote(SETTINGS, base, state, "ward-3-00002", 0.5, even_if_worse=True).progress
    assert (told.state, told.release) == ("canary", "ward-3-00002")
    with opened(SETTINGS, base, state) as rollouts:
        shipped = settled(rollouts.all)
    assert shipped is not None
    assert shipped.progress.release == "ward-3-00001", "what is on trial is not what wearables run"
