"""Judges of labelled windows have not learned from them; what they cannot be fair to, they do not judge."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.classifier import fit_classifier
from coordinator.judging import FOLDS, NO_FOLD, Judges, folds
from export.release import Release, read_release
from export.trial import embeddings
from mekt.plan import Method
from mekt.scores import Indexes
from sensors.windows import UNLABELLED, WindowSet
from tests.export.small import ACC, FUSED, GYRO, LABELS, parts_of, random_windows

PARTS = parts_of(ACC, GYRO)
COUNT = 60


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    path = tmp_path_factory.mktemp("releases") / "release.zip"
    PARTS.write(path)
    return read_release(path)


# Folds


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(UNLABELLED, 3)), min_size=1, max_size=80))
def test_nobody_is_in_two_folds_and_every_class_that_is_judged_can_be_learned_elsewhere(
    windows: list[tuple[int, int]],
) -> None:
    recording_N, labels_N = (np.array(each) for each in zip(*sorted(windows, key=lambda each: each[0]), strict=True))
    given = folds(recording_N, labels_N)
    assert set(given) <= {NO_FOLD, *range(FOLDS)}
    assert (given[labels_N == UNLABELLED] == NO_FOLD).all()
    labelled = np.unique(recording_N[labels_N != UNLABELLED])
    for each in labelled if len(labelled) > 1 else ():
        assert len(set(given[recording_N == each]) - {NO_FOLD}) <= 1
    for each in np.unique(labels_N[given != NO_FOLD]):
        assert len(np.unique(given[labels_N == each])) > 1
    assert np.array_equal(given, folds(recording_N, labels_N))


@pytest.mark.parametrize(
    ("recordings", "expected"),
    [
        (2, [0, 1]),
        (3, [0, 1, 2]),
        (8, [0, 0, 1, 1, 2, 2, 3, 3]),
        (9, [0, 0, 0, 1, 1, 2, 2, 3, 3]),
    ],
)
def test_recordings_that_lie_side_by_side_are_in_one_fold(recordings: int, expected: list[int]) -> None:
    given = folds(np.repeat(np.arange(recordings), 3), np.zeros(3 * recordings, dtype=np.int64))
    assert given.tolist() == np.repeat(expected, 3).tolist()


def test_one_recording_is_cut_in_time_each_class_into_as_many_runs() -> None:
    labels_N = np.array([0, 0, 0, 0, UNLABELLED, 1, 1, 1, 1, 1, 1, 1, 1, 2])
    assert folds(np.zeros(14, dtype=np.int64), labels_N).tolist() == [0, 1, 2, 3, -1, 0, 0, 1, 1, 2, 2, 3, 3, -1]


def test_a_class_that_one_fold_alone_has_is_not_judged() -> None:
    """Whoever has not learned it is wrong about it whatever a form does, and would find that nothing is lost."""
    assert folds(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, 2, 0])).tolist() == [0, -1, -1, 1, -1, 1]


# Judges


def test_a_fold_is_judged_by_what_the_others_say_alone(release: Release) -> None:
    rng = np.random.default_rng(0)
    arrays = random_windows(PARTS.plan, COUNT, seed=2)
    labels_N, folds_N = rng.integers(0, len(LABELS), COUNT), np.repeat([0, 1, 2], COUNT // 3)
    features_NF = rng.normal(0, 1, (COUNT, 8)).astype(np.float32)
    rows = np.arange(COUNT)

    def answers(labels_N: Indexes) -> Indexes:
        judges = Judges(release, PARTS.plan, WindowSet(arrays=arrays, labels=labels_N), folds_N)
        return judges(FUSED, features_NF, rows)

    lied = np.where(folds_N == 1, (labels_N + 1) % len(LABELS), labels_N)
    same = answers(labels_N) == answers(lied)
    assert same[folds_N == 1].all(), "its own labels are nothing to it"
    assert not same[folds_N != 1].all(), "others learn from them"


def test_judges_are_fitted_as_a_rounds_classifiers_are(release: Release) -> None:
    """Without changed copies that is done by hand: the embeddings of the other folds, and `fit_classifier`."""
    plan = replace(PARTS.plan, method=Method(embedding=4, hidden=6, knowledge_rows=1, augment=0.0))
    arrays = random_windows(plan, COUNT, seed=2)
    labels_N, folds_N = np.arange(COUNT) % 3, np.repeat([0, NO_FOLD, 1], COUNT // 3)
    acc = release.manifest.encoders[0]
    embedded_ND = embeddings(release.models[acc.file], acc.scaling.normalise(arrays["acc"]))
    judges = Judges(release, plan, WindowSet(arrays=arrays, labels=labels_N), folds_N)
    for fold in (0, 1):
        others = folds_N == 1 - fold
        expected = fit_classifier(embedded_ND[others], labels_N[others], len(LABELS)).predict(embedded_ND)
        rows = np.flatnonzero(folds_N == fold)
        assert np.array_equal(judges("acc", embedded_ND[rows], rows), expected[rows])


def test_judges_learn_from_changed_copies_too(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def fit(features_NF: np.ndarray, labels_N: np.ndarray, classes: int) -> object:
        seen.append(len(features_NF))
        return fit_classifier(features_NF, labels_N, classes)

    monkeypatch.setattr("coordinator.judging.fit_classifier", fit)
    windows = WindowSet(arrays=random_windows(PARTS.plan, COUNT, seed=2), labels=np.arange(COUNT) % 3)
    judges = Judges(release, PARTS.plan, windows, np.arange(COUNT) % 2)
    judges("acc", np.zeros((COUNT, 4), np.float32), np.arange(COUNT))
    assert seen == [5 * COUNT // 2] * 2, "once for each fold, four copies of each window"
