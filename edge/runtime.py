"""A release at work: windows in, class probabilities out, with onnxruntime alone.

Shapes: N windows, T samples, D embedding width, K classes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from edge.steps import Steps
from export.manifest import ClassifierEntry, EncoderEntry
from export.release import Release
from export.session import session
from mekt import catalogue
from mekt.errors import ReleaseError, SensorError
from sensors.source import Floats

# Windows that are computed at once; bounds the memory.
BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Decisions:
    """What one classifier says about N windows: probabilities (N, K) of the classes in `labels`."""

    classifier: str
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: Floats

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def best(self) -> list[tuple[str, float]]:
        """Per window the most probable class and its probability."""
        picked = self.probabilities.argmax(axis=1)
        return [(self.labels[index], float(self.probabilities[row, index])) for row, index in enumerate(picked)]


class Runtime:
    """The models of a release that `modalities` (default: all) suffice for, loaded and tried once. One thread.

    Of an encoder's forms it runs the one that its manifest finds best (`Manifest.file_to_run`). `steps` are the
    encoders that go through a stream in steps, by modality, where its windows are `stride_s` apart and that is faster.
    """

    def __init__(
        self, release: Release, modalities: Sequence[str] | None = None, *, stride_s: float | None = None
    ) -> None:
        """Load the models; their files' bytes are not needed any more after that.

        Raises:
            ReleaseError: when no classifier can be used, or a model does not run or does not fit the manifest.
        """
        self.manifest = release.manifest
        there = {each.name for each in self.manifest.modalities} if modalities is None else set(modalities)
        self._classifiers = {name: entry for name, entry in _ranked(release) if there >= set(entry.modalities)}
        if not self._classifiers:
            raise ReleaseError(f"{release.path}: {_no_classifier(release, there)}", catalogue.RELEASE_HAS_NO_CLASSIFIER)
        used = {name for entry in self._classifiers.values() for name in entry.modalities}
        self._encoders = {each.modality.name: each for each in self.manifest.encoders if each.modality.name in used}
        files = [self.manifest.file_to_run(each) for each in self._encoders.values()]
        files += [each.file for each in self._classifiers.values()]
        self._sessions = {file: _session(release, file) for file in files}
        self._try_out(release)
        self.steps = {} if stride_s is None else self._steps(release, stride_s)

    def choose(self, modalities: Collection[str]) -> str | None:
        """The classifier for windows of these modalities: the one that uses most of them, or None.

        Of equals, the one whose metric `weighted_f1/<name>` is highest, then the first by name.
        """
        there = set(modalities)
        return next((name for name, entry in self._classifiers.items() if there >= set(entry.modalities)), None)

    def classify(
        self,
        arrays: Mapping[str, Floats],
        classifier: str | None = None,
        embedded: Mapping[str, Floats] = MappingProxyType({}),
    ) -> Decisions:
        """What the best classifier for these modalities, or the one named, says about N windows.

        `arrays` are windows as sensed, per modality (N, T, ...), not normalised. Of those in `embedded` the embeddings
        (N, D) are known already.

        Raises:
            SensorError: when the arrays do not have the shape of the release's windows, or suffice for no classifier.
        """
        name = self.choose(arrays) if classifier is None else classifier
        if name is None:
            raise SensorError(
                f"no classifier for {_listed(arrays)}; there are {_described(self._classifiers)}",
                catalogue.MODALITY_MISSING,
            )
        entry = self._classifiers[name]
        lengths = {self._checked_length(each, arrays) for each in entry.modalities}
        if len(lengths) != 1:
            raise SensorError(
                f"modalities {_listed(entry.modalities)} have different numbers of windows: {lengths}",
                catalogue.WINDOWS_UNFIT,
            )
        [count] = lengths
        parts = [np.empty((0, len(self.manifest.labels)), dtype=np.float32)]
        for first in range(0, count, BATCH):
            rows = slice(first, first + BATCH)
            embeddings = [
                embedded[each][rows] if each in embedded else self._embed(self._encoders[each], arrays[each][rows])
                for each in entry.modalities
            ]
            parts.append(self._run(entry.file, np.concatenate(embeddings, axis=1)))
        return Decisions(
            classifier=name,
            modalities=entry.modalities,
            labels=self.manifest.labels,
            probabilities=np.concatenate(parts),
        )

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The classifiers that can be used, the preferred one first."""
        return tuple(self._classifiers)

    def takes(self, classifier: str) -> tuple[str, ...]:
        """The modalities that this classifier takes, in its order."""
        return self._classifiers[classifier].modalities

    def _steps(self, release: Release, stride_s: float) -> dict[str, Steps]:
        made = {}
        for name, entry in self._encoders.items():
            count, form = self.manifest.steps_to_run(entry, stride_s), entry.step
            if count and form is not None:
                made[name] = Steps(entry, form, _session(release, form.file), count)
                try:
                    made[name].try_out()
                except Exception as error:  # onnxruntime's exceptions share no base class of their own
                    raise _does_not_run(release, form.file, error) from error
        return made

    def _checked_length(self, modality: str, arrays: Mapping[str, Floats]) -> int:
        if modality not in arrays:
            raise SensorError(f"no windows of {modality}; there are {_listed(arrays)}", catalogue.MODALITY_MISSING)
        wanted = self.manifest.window.shape(self._encoders[modality].modality)
        if arrays[modality].shape[1:] != wanted:
            raise SensorError(
                f"windows of {modality} have shape {arrays[modality].shape}, the release needs {('N', *wanted)}; "
                "cut them by the window and rate of its manifest",
                catalogue.WINDOWS_UNFIT,
            )
        return len(arrays[modality])

    def _embed(self, entry: EncoderEntry, windows: Floats) -> Floats:
        return self._run(self.manifest.file_to_run(entry), entry.scaling.normalise(windows))

    def _run(self, file: str, x: Floats) -> Floats:
        model = self._sessions[file]
        [result] = model.run(None, {model.get_inputs()[0].name: x.astype(np.float32, copy=False)})
        output: Floats = result
        return output

    def _try_out(self, release: Release) -> None:
        """One window through every model, so that what does not fit is found now; it also warms the models up."""
        window = self.manifest.window
        zeros = {
            name: np.zeros((1, *window.shape(entry.modality)), dtype=np.float32)
            for name, entry in self._encoders.items()
        }
        for name, encoder in self._encoders.items():
            self._try(release, self.manifest.file_to_run(encoder), zeros[name], encoder.embedding)
        for classifier in self._classifiers.values():
            width = sum(self._encoders[each].embedding for each in classifier.modalities)
            features = np.zeros((1, width), dtype=np.float32)
            self._try(release, classifier.file, features, len(self.manifest.labels))

    def _try(self, release: Release, file: str, x: Floats, width: int) -> None:
        try:
            shape = self._run(file, x).shape
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise _does_not_run(release, file, error) from error
        if shape != (1, width):
            raise ReleaseError(
                f"{release.path}: {file} gives {shape}, its manifest says {(1, width)}; export the release again",
                catalogue.RELEASE_DOES_NOT_RUN,
            )


def _does_not_run(release: Release, file: str, error: Exception) -> ReleaseError:
    return ReleaseError(
        f"{release.path}: {file} does not run ({error}); export the release again", catalogue.RELEASE_DOES_NOT_RUN
    )


def _session(release: Release, file: str) -> Any:
    try:
        return session(release.models[file], file)
    except ReleaseError as error:
        raise ReleaseError(f"{release.path}: {error}", error.entry) from error


def _ranked(release: Release) -> list[tuple[str, ClassifierEntry]]:
    metrics = release.manifest.metrics

    def rank(item: tuple[str, ClassifierEntry]) -> tuple[int, float, str]:
        name, entry = item
        return -len(entry.modalities), -metrics.get(f"weighted_f1/{name}", 0.0), name

    return sorted(release.manifest.classifiers.items(), key=rank)


def _no_classifier(release: Release, there: Collection[str]) -> str:
    if not release.manifest.classifiers:
        return "holds encoders but no classifier; give the coordinator labelled recordings"
    return (
        f"no classifier for {_listed(there)} alone; there are {_described(release.manifest.classifiers)}; "
        "use a source that has these modalities"
    )


def _described(classifiers: Mapping[str, ClassifierEntry]) -> str:
    return ", ".join(f"{name} ({_listed(entry.modalities)})" for name, entry in sorted(classifiers.items()))


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
