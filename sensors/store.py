"""A bounded private store of windows: the newest, in memory, in the order in which they came."""

from collections.abc import Mapping

import numpy as np

from mekt import catalogue
from mekt.errors import SensorError
from sensors.source import Floats
from sensors.windows import Window


class WindowStore:
    """The newest `capacity` windows of a device. Nothing in it ever leaves the device. One thread at a time uses it."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], capacity: int) -> None:
        """`shapes`: per modality the shape (T, ...) of a window; memory is taken as it is used.

        Raises:
            SensorError: when it would hold no window, or more than the memory does.
        """
        if capacity < 1 or not shapes:
            raise SensorError(
                f"a store of {capacity} windows of {len(shapes)} modalities holds nothing; name at least one of each",
                catalogue.SOURCE_MISUSED,
            )
        try:
            self._rings = {name: np.empty((capacity, *shape), dtype=np.float32) for name, shape in shapes.items()}
        except (MemoryError, ValueError) as error:
            raise SensorError(
                f"a store of {capacity} windows does not fit into the memory; keep fewer windows",
                catalogue.MEMORY_TOO_SMALL,
            ) from error
        self.capacity = capacity
        self.total = 0

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    def add(self, window: Window) -> None:
        """Keep a copy of `window`; when the store is full, the oldest makes room.

        Modalities that the store does not have are passed over.

        Raises:
            SensorError: when a modality is missing or of another shape; the store is then as before.
        """
        for name, ring in self._rings.items():
            shape = window.arrays[name].shape if name in window.arrays else None
            if shape != ring.shape[1:]:
                seen = "is missing" if shape is None else f"has shape {shape}"
                raise SensorError(
                    f"a window's {name} {seen}, the store keeps {ring.shape[1:]}; use one plan for windows and store",
                    catalogue.WINDOWS_UNFIT,
                )
        row = self.total % self.capacity
        for name, ring in self._rings.items():
            ring[row] = window.arrays[name]
        self.total += 1

    def arrays(self) -> dict[str, Floats]:
        """A copy of all windows in the order in which they came: per modality (N, T, ...)."""
        oldest = self.total % self.capacity if self.total > self.capacity else 0
        return {name: np.roll(ring[: len(self)], -oldest, axis=0) for name, ring in self._rings.items()}
