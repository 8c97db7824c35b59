"""Windows of late, of all that a wearable has seen: what a new release is tried on. In memory alone, and bounded.

A wearable keeps no window on its disk: the few that a self-test takes come again in minutes, and a disk can be read.

Shapes: N windows, T samples.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sensors.source import Floats

MOST_WINDOWS = 96
MOST_BYTES = 8 * 1024 * 1024
# Of so many windows of one class at least it can be said whether another release says the same.
FEWEST_OF_A_CLASS = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Seen:
    label: str
    arrays: Mapping[str, Floats]
    size_bytes: int


class Recent:
    """So many windows at most, and bytes of them. A new one takes the place of the oldest of the commonest class.

    So an hour in a chair does not drive out the walk before it: a release that takes one class for another is found
    out, and one that has always mixed up two of them is not judged by these alone.
    """

    def __init__(self, most_windows: int = MOST_WINDOWS, most_bytes: int = MOST_BYTES) -> None:
        self._most_windows, self._most_bytes = most_windows, most_bytes
        self._seen: list[_Seen] = []
        self._size_bytes = 0
        # How many there were, whether they are still here or not: of a camera's there is room for a few.
        self.count = 0

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def classes(self) -> int:
        """Of how many classes there are enough windows to compare releases by."""
        return sum(count >= FEWEST_OF_A_CLASS for count in Counter(seen.label for seen in self._seen).values())

    def add(self, arrays: Mapping[str, Floats], label: str) -> None:
        """Take in a window as sensed, per modality (T, ...), that was said to be of this class."""
        self.count += 1
        # A copy: windows may share memory with the windower's.
        kept = {name: np.array(array, dtype=np.float32) for name, array in arrays.items()}
        size_bytes = sum(array.nbytes for array in kept.values())
        if size_bytes > self._most_bytes:
            return
        self._seen.append(_Seen(label=label, arrays=kept, size_bytes=size_bytes))
        self._size_bytes += size_bytes
        while len(self._seen) > self._most_windows or self._size_bytes > self._most_bytes:
            self._drop()

    def groups(self) -> list[dict[str, Floats]]:
        """The windows, those of the same modalities and lengths side by side: per modality (N, T, ...)."""
        alike: dict[tuple[tuple[str, tuple[int, ...]], ...], list[Mapping[str, Floats]]] = {}
        for seen in self._seen:
            key = tuple((name, array.shape) for name, array in sorted(seen.arrays.items()))
            alike.setdefault(key, []).append(seen.arrays)
        return [_stacked(each) for each in alike.values()]

    def _drop(self) -> None:
        counts = Counter(seen.label for seen in self._seen)
        commonest = max(counts, key=lambda label: counts[label])
        gone = next(index for index, seen in enumerate(self._seen) if seen.label == commonest)
        self._size_bytes -= self._seen.pop(gone).size_bytes


def _stacked(windows: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {name: np.stack([each[name] for each in windows]) for name in windows[0]}
