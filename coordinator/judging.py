"""Classifiers for windows that they were not fitted on: the labelled ones in folds, each judged by the other folds.

What they say decides which forms of an encoder a release keeps (`export.finish`); its own classifiers, which learned
from all labelled windows, would take their own for known, whatever a form has made of them.

Shapes: N windows, D embedding width, F features of a classifier.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coordinator.classifier import LinearClassifier, fit_classifier, with_changed
from export.release import Release
from export.trial import Rows, embeddings
from mekt.plan import Plan
from mekt.scores import Indexes
from sensors.source import Floats
from sensors.windows import UNLABELLED, WindowSet

FOLDS = 4
NO_FOLD = -1


def folds(recording_N: NDArray[np.int64], labels_N: Indexes) -> Indexes:
    """The fold (N) of each window, `NO_FOLD` where it cannot be judged. `recording_N` numbers its recording.

    Recordings that are named side by side, as those of one person, are in one fold. Where one alone has labels, its
    windows are cut in time, each class into as many runs. What has no label, or a class that is in one fold only, has
    none.
    """
    given = np.full(len(labels_N), NO_FOLD, dtype=np.int64)
    labelled = labels_N != UNLABELLED
    there = np.unique(recording_N[labelled])
    classes = [np.flatnonzero(labels_N == each) for each in np.unique(labels_N[labelled])]
    if len(there) > 1:
        given[labelled] = np.searchsorted(there, recording_N[labelled]) * min(FOLDS, len(there)) // len(there)
    else:
        for rows in classes:
            given[rows] = np.arange(len(rows)) * FOLDS // len(rows)
    for rows in classes:
        if len(np.unique(given[rows])) == 1:
            given[rows] = NO_FOLD
    return given


class Judges:
    """A release's classifiers once more, fitted as a round fits them (`coordinator.classifier`), one for each fold."""

    def __init__(self, release: Release, plan: Plan, windows: WindowSet, folds_N: Indexes) -> None:
        """`windows` are as sensed, `folds_N` their folds; nothing is fitted before it is asked for."""
        self._release, self._plan, self._windows, self._folds = release, plan, windows, folds_N
        self._fitted: dict[tuple[str, int], LinearClassifier] = {}

    def __call__(self, classifier: str, features_NF: Floats, rows: Rows) -> Indexes:
        """The class (N) of each of these `rows` of the windows, by its features, as its fold's classifier has it."""
        answers = np.full(len(rows), UNLABELLED, dtype=np.int64)
        for fold in np.unique(self._folds[rows]):
            of_fold = self._folds[rows] == fold
            answers[of_fold] = self._of(classifier, int(fold)).predict(features_NF[of_fold])
        return answers

    def _of(self, classifier: str, fold: int) -> LinearClassifier:
        key = (classifier, fold)
        if key not in self._fitted:
            embedded_ND, labels_N, folds_N = self._learned
            manifest = self._release.manifest
            features_NF = np.concatenate([embedded_ND[each] for each in manifest.classifiers[classifier].modalities], 1)
            others = folds_N != fold
            self._fitted[key] = fit_classifier(features_NF[others], labels_N[others], len(manifest.labels))
        return self._fitted[key]

    @cached_property
    def _learned(self) -> tuple[dict[str, Floats], Indexes, Indexes]:
        """Embeddings of all windows that have a fold, and of changed copies of them; their labels; their folds."""
        manifest, models = self._release.manifest, self._release.models
        chosen = self._windows.select(self._folds != NO_FOLD)
        arrays = {
            each.modality.name: each.scaling.normalise(chosen.arrays[each.modality.name]) for each in manifest.encoders
        }
        learned = with_changed(self._plan, WindowSet(arrays=arrays, labels=chosen.labels))
        folds_N = np.tile(self._folds[self._folds != NO_FOLD], len(learned.labels) // len(chosen.labels))
        embedded = {
            each.modality.name: embeddings(models[each.file], learned.arrays[each.modality.name])
            for each in manifest.encoders
        }
        return embedded, learned.labels, folds_N
