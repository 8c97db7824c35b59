"""What another form of an encoder costs: weighted F1 of classifiers on its embeddings, with it and without.

Shapes: N windows, T samples, D embedding width, F features of a classifier.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.layers import Floats
from export.manifest import EncoderEntry
from export.release import Release
from export.session import session
from export.steps import EMBEDDING, Step
from mekt.scores import Indexes, weighted_f1

# Windows that are computed at once; bounds the memory.
BATCH = 64
# With fewer there is no telling half a hundredth of F1.
LEAST_WINDOWS = 30

Rows = NDArray[np.intp]
# The class (N) that a classifier, by its name, gives these features (N, F) of these rows (N) of the windows.
Judge = Callable[[str, Floats, Rows], Indexes]


class Trial:
    """A release's encoders as they were trained on labelled windows, to compare others with."""

    def __init__(self, release: Release, windows: Mapping[str, Floats], labels: Indexes, judge: Judge) -> None:
        """`windows` are as sensed, per modality (N, T, ...), in the order of their time; what is below 0 has no label.

        A window without a label is not scored, but one that follows it knows by it what was before. `judge` must not
        have learned from the windows that it is asked about: it would know them whatever a form has made of them.
        """
        self._manifest = release.manifest
        self._labels, self._judge = labels, judge
        self._windows = {
            each.modality.name: each.scaling.normalise(windows[each.modality.name])
            for each in release.manifest.encoders
        }
        self._embeddings = {
            each.modality.name: embeddings(release.models[each.file], self._windows[each.modality.name])
            for each in release.manifest.encoders
        }

    def of_model(self, modality: str, model: bytes) -> dict[str, float]:
        """By how much weighted F1 falls, per classifier, when this model gives the modality's embeddings.

        Nothing when that cannot be told.
        """
        rows = np.flatnonzero(self._labels >= 0)
        if len(rows) < LEAST_WINDOWS:
            return {}
        return self._lost(modality, embeddings(model, self._windows[modality][rows]), rows)

    def of_step(self, entry: EncoderEntry, step: Step) -> dict[str, float]:
        """The same of a model of steps, on windows of which so much is known as the step's history.

        What was before a window is known from the windows before it, where they share samples.
        """
        x = self._windows[entry.modality.name]
        stride = round(self._manifest.window.stride_s * entry.modality.rate_hz)
        before = -(-(step.history - x.shape[1]) // stride)
        follows = following(x, stride)
        rows = np.array([row for row in np.flatnonzero(self._labels >= 0) if follows[row] >= before], dtype=np.intp)
        if len(rows) < LEAST_WINDOWS:
            return {}
        run = session(step.model, "step")
        streams = (
            np.concatenate([x[row - before], *(x[row - back][-stride:] for back in range(before)[::-1])])
            for row in rows
        )
        return self._lost(entry.modality.name, np.stack([last_of(run, entry, step, each) for each in streams]), rows)

    def _lost(self, modality: str, given_ND: Floats, rows: Rows) -> dict[str, float]:
        with_it = {**{name: each[rows] for name, each in self._embeddings.items()}, modality: given_ND}
        without = {name: each[rows] for name, each in self._embeddings.items()}
        return {
            name: self._f1(name, without, rows) - self._f1(name, with_it, rows)
            for name in sorted(self._manifest.users(modality))
        }

    def _f1(self, classifier: str, embeddings: Mapping[str, Floats], rows: Rows) -> float:
        modalities = self._manifest.classifiers[classifier].modalities
        joined = np.concatenate([embeddings[each] for each in modalities], axis=1)
        return weighted_f1(self._labels[rows], self._judge(classifier, joined, rows), len(self._manifest.labels))


def its_own(release: Release) -> Judge:
    """A release's own classifiers, for windows that they were not fitted on."""
    classifiers = {
        name: session(release.models[each.file], name) for name, each in release.manifest.classifiers.items()
    }

    def judge(classifier: str, features_NF: Floats, rows: Rows) -> Indexes:
        [probabilities_NK] = classifiers[classifier].run(None, {"embeddings": features_NF})
        answers: Indexes = probabilities_NK.argmax(axis=1).astype(np.int64)
        return answers

    return judge


def embeddings(model: bytes, x: Floats) -> Floats:
    """The embeddings (N, D) of normalised windows (N, T, ...)."""
    run = session(model, "encoder")
    name = run.get_inputs()[0].name
    given: Floats = np.concatenate([run.run(None, {name: x[at : at + BATCH]})[0] for at in range(0, len(x), BATCH)])
    return given


def following(x: Floats, stride: int) -> NDArray[np.int64]:
    """How many windows before each of `x` (N, T, ...) lead up to it, one `stride` of samples after the other."""
    follows = np.zeros(len(x), dtype=np.int64)
    for row in range(1, len(x)):
        if 0 < stride < x.shape[1] and np.array_equal(x[row, :-stride], x[row - 1, stride:]):
            follows[row] = follows[row - 1] + 1
    return follows


def last_of(run: Any, entry: EncoderEntry, step: Step, stream: Floats) -> Floats:
    """The embedding (D) after the steps through a normalised stream (T, ...), the last of which ends with it."""
    steps = -(-step.history // step.samples)
    seen = np.zeros((step.takes + (steps - 1) * step.samples, *stream.shape[1:]), dtype=np.float32)
    known = min(len(stream), len(seen))
    seen[len(seen) - known :] = stream[len(stream) - known :]
    state = {name: np.zeros((1, *shape), dtype=np.float32) for name, shape in step.state.items()}
    names = [EMBEDDING, *(f"next_{name}" for name in state)]
    embedding = np.zeros(0, dtype=np.float32)
    for at in range(0, steps * step.samples, step.samples):
        [embedding], *new = run.run(names, {entry.modality.name: seen[None, at : at + step.takes], **state})
        state = dict(zip(state, new, strict=True))
    return embedding
