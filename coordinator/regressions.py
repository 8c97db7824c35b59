"""Classes that a release finds less often than the one that wearables run, on the coordinator's labelled windows.

Both learned from these windows, as a rule, and know them well: what is found here is no better guess gone wrong, but a
release that is broken, such as one whose classes changed places.

Shapes: N windows, F features of a classifier.
"""

from dataclasses import dataclass

import numpy as np

from export.release import Release
from export.trial import embeddings, its_own
from sensors.windows import WindowSet

# Of a class with fewer windows nothing is said.
LEAST_WINDOWS = 20
MOST_LOST = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """A class, and the share of its windows that one release finds, and the other."""

    label: str
    before: float
    after: float


def regressions(before: Release, after: Release, windows: WindowSet) -> list[Regression]:
    """The classes of which the second release finds less by more than `MOST_LOST` of all windows of the class.

    `windows` are as sensed, their labels indexes of the second one's. Compared are the classifiers that take most
    modalities; nothing where the two take other windows, and no class that one of them does not know.
    """
    one, other = before.manifest, after.manifest
    if (
        one.window != other.window
        or {*one.modalities} != {*other.modalities}
        or not (one.classifiers and other.classifiers)
    ):
        return []
    answers = [_answers(release, windows) for release in (before, after)]
    found = []
    for index, label in enumerate(other.labels):
        rows = windows.labels == index
        if rows.sum() >= LEAST_WINDOWS and label in one.labels:
            shares = [float((each[rows] == label).mean()) for each in answers]
            if shares[0] - shares[1] > MOST_LOST:
                found.append(Regression(label=label, before=shares[0], after=shares[1]))
    return found


def _answers(release: Release, windows: WindowSet) -> np.ndarray:
    """The class (N) of each window, by its name."""
    manifest = release.manifest
    name = max(sorted(manifest.classifiers), key=lambda each: len(manifest.classifiers[each].modalities))
    parts = []
    for each in manifest.classifiers[name].modalities:
        entry = manifest.encoder(each)
        assert entry is not None, "a manifest is whole"
        parts.append(embeddings(release.models[entry.file], entry.scaling.normalise(windows.arrays[each])))
    answers = its_own(release)(name, np.concatenate(parts, axis=1), np.arange(len(windows)))
    return np.array(manifest.labels)[answers]
