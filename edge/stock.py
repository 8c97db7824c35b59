"""Private windows as learning takes them: a batch at a time, so that memory does not grow with how many there are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mekt.learning import Arrays
from mekt.modality import Scaling

Places = NDArray[np.integer[Any]]


class Stock(Protocol):
    """Windows of which batches are taken, such as those that a round holds (`sensors.store.Hold`)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities of a window."""

    def __len__(self) -> int:
        """How many windows there are."""

    def take(self, places: Places, /) -> Arrays:
        """A copy of the windows at these places: per modality (n, T, ...)."""


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """Windows that are all in memory: per modality (N, T, ...)."""

    arrays: Arrays

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities of a window."""
        return tuple(self.arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, places: Places, /) -> dict[str, NDArray[np.float32]]:
        """A copy of the windows at these places."""
        return {name: array[places] for name, array in self.arrays.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Where a modality's values lie: their mean and deviation."""

    mean: float
    deviation: float


@dataclass(eq=False)
class Normalised:
    """Windows in these scalings, each normalised when it is taken, to the same bits as all of them at once.

    In passing it is noted where the values lie, of as many windows as there are: learning visits each of them once
    before it visits one again.
    """

    stock: Stock
    scaling: Mapping[str, Scaling]
    _visited: int = 0
    # Of each modality: how many values, their mean, the sum of their squared distances from it.
    _moments: dict[str, tuple[int, float, float]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities of a window."""
        return self.stock.names

    def __len__(self) -> int:
        return len(self.stock)

    def take(self, places: Places, /) -> dict[str, NDArray[np.float32]]:
        """A copy of the windows at these places, normalised."""
        taken = {name: self.scaling[name].normalise(array) for name, array in self.stock.take(places).items()}
        if self._visited < len(self):
            self._visited += len(places)
            for name, array in taken.items():
                self._note(name, array)
        return taken

    @property
    def scales(self) -> dict[str, Scale]:
        """Of what was taken first."""
        return {
            name: Scale(mean=mean, deviation=math.sqrt(squares / count) if count else 0.0)
            for name, (count, mean, squares) in self._moments.items()
        }

    def _note(self, name: str, array: NDArray[np.float32]) -> None:
        """Take a batch into account (Chan, Golub, LeVeque, 1983)."""
        count, mean, squares = self._moments.get(name, (0, 0.0, 0.0))
        # A value that is no number makes these none; learning from it fails, and says so.
        with np.errstate(invalid="ignore", over="ignore"):
            own_mean = float(array.mean(dtype=np.float64))
            own_squares = float(array.var(dtype=np.float64)) * array.size
        total, step = count + array.size, own_mean - mean
        squares += own_squares + step * step * count * array.size / total
        self._moments[name] = (total, mean + step * array.size / total, squares)
