"""The private store of windows: the newest, on disk, bounded in number and age; learning takes batches from it.

There are more rows than windows that count: a round holds the windows that it learns from, and what is sensed meanwhile
goes into the others, then in place of the oldest that no round holds. So a round learns from the same windows however
long it takes, and none is copied for it.
"""

import bisect
import contextlib
import errno
import logging
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError, StateError
from sensors.rows import Rows, row_bytes
from sensors.seal import Seal
from sensors.source import Floats
from sensors.windows import Window

log = logging.getLogger(__name__)

# For so many windows that count there is a row more.
WINDOWS_A_SPARE_ROW = 4
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def rows_for(capacity: int) -> int:
    """How many rows a store of so many windows has."""
    return capacity + max(1, capacity // WINDOWS_A_SPARE_ROW)


def largest_capacity(shapes: Mapping[str, tuple[int, ...]], size_bytes: int) -> int:
    """How many windows of these shapes a store may count so that its rows take no more than `size_bytes`."""
    rows = size_bytes // sum(row_bytes(shape) for shape in shapes.values())
    capacity = rows * WINDOWS_A_SPARE_ROW // (WINDOWS_A_SPARE_ROW + 1)
    while rows_for(capacity + 1) <= rows:
        capacity += 1
    return max(0, capacity if rows_for(capacity) <= rows else rows - 1)


class WindowStore:
    """The newest `capacity` windows of a device, oldest first. Nothing of it leaves the device. Any thread may use it.

    What was in `folder` is taken up, where it is of the same `kind` and shapes and under the same key. With
    `most_age_s` a window counts for so long, by the machine's clock, and is then overwritten; one that a clock set
    forward makes older, or one set back younger than it could be, is taken for too old. A full disk bounds the store
    as well: the oldest windows make room.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        capacity: int,
        *,
        kind: str = "",
        most_age_s: float | None = None,
        seal: Seal | None = None,
        afresh: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`shapes`: per modality the shape (T, ...) of a window; room on the disk is taken as it is used.

        Raises:
            SensorError: when it would hold no window.
            StateError: when the folder cannot be used.
        """
        if capacity < 1 or not shapes:
            raise SensorError(
                f"a store of {capacity} windows of {len(shapes)} modalities holds nothing; name at least one of each",
                catalogue.SOURCE_MISUSED,
            )
        self.capacity = capacity
        self._shapes = dict(shapes)
        self._most_age_s, self._clock = most_age_s, clock
        self._lock = threading.RLock()
        count = rows_for(capacity)
        self._rows = Rows(folder, kind, shapes, count, seal=seal, afresh=afresh)
        # The numbers of the windows that are there, ascending, and the row of each.
        there = np.flatnonzero(self._rows.entries["number"])
        there = there[np.argsort(self._rows.entries["number"][there])]
        self._numbers = array("q", self._rows.entries["number"][there].astype(np.int64).tolist())
        self._places = array("q", there.tolist())
        self._free = array("q", sorted(set(range(count)) - set(self._places), reverse=True))
        self._newest = self._numbers[-1] if self._numbers else 0
        # Rows that are known to be what was written; those that were taken up are looked at when they are first held.
        self._sound = np.zeros(count, dtype=np.bool_)
        self._holds: list[Hold] = []
        self._is_open = True
        self.expire()
        if self._numbers:
            log.info("%d private windows of before are taken up", len(self))

    def __len__(self) -> int:
        with self._lock:
            return min(len(self._numbers), self.capacity)

    def close(self) -> None:
        """Keep no more windows; those that are there can still be held."""
        with self._lock:
            self._is_open = False
            self._rows.close()

    def add(self, window: Window) -> None:
        """Keep a copy of `window`; when the store is full, the oldest that is not held makes room.

        Modalities that the store does not have are passed over, as is all once the store is closed.

        Raises:
            SensorError: when a modality is missing or of another shape; the store is then as before.
            StateError: when the disk does not take it.
        """
        for name, shape in self._shapes.items():
            seen_shape = window.shape(name)
            if seen_shape != shape:
                seen = "is missing" if seen_shape is None else f"has shape {seen_shape}"
                raise SensorError(
                    f"a window's {name} {seen}, the store keeps {shape}; use one plan for windows and store",
                    catalogue.WINDOWS_UNFIT,
                )
        with self._lock:
            if not self._is_open:
                return
            try:
                self._put(self._room(), window)
            except StateError as error:
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno not in NO_ROOM or not self._numbers:
                    raise
                # Where a window was there is room for another.
                self._put(self._oldest(), window)

    def expire(self) -> None:
        """Overwrite the windows that are too old, but for those that are held."""
        if self._most_age_s is None:
            return
        with self._lock:
            if not self._is_open or not self._numbers:
                return
            kept_at_s = self._rows.entries["kept_at_s"][np.frombuffer(self._places, dtype=np.int64)]
            old = np.flatnonzero(np.abs(self._clock() - kept_at_s) > self._most_age_s)
            for place in old[::-1].tolist():
                if not self._is_held(self._numbers[place]):
                    self._rows.clear(self._drop(place))

    def hold(self) -> "Hold":
        """The windows that count now, kept as they are until they are let go."""
        with self._lock:
            self.expire()
            numbers, places = self._numbers[-self.capacity :], self._places[-self.capacity :]
            held = Hold(self, np.array(numbers, dtype=np.int64), np.array(places, dtype=np.int64))
            self._holds.append(held)
            return held

    def _put(self, row: int, window: Window) -> None:
        try:
            self._rows.write(row, self._newest + 1, window.start_s, self._clock(), window.values)
        except StateError:
            self._free.append(row)
            raise
        finally:
            # A number is used once, even where its row was not written whole.
            self._newest += 1
        self._numbers.append(self._newest)
        self._places.append(row)
        self._sound[row] = True

    def _room(self) -> int:
        return self._free.pop() if self._free else self._oldest()

    def _oldest(self) -> int:
        """The row of the oldest window that no round holds, which is none any more."""
        place = 0
        while place < len(self._numbers) and (last := self._held_up_to(self._numbers[place])) is not None:
            place = bisect.bisect_right(self._numbers, last)
        if place == len(self._numbers):
            raise StateError("rounds hold every window that fits; let them go first", catalogue.DISK_FULL)
        return self._drop(place)

    def _held_up_to(self, number: int) -> int | None:
        """The last window of a round that holds this one."""
        return next((each.last for each in self._holds if each.first <= number <= each.last), None)

    def _is_held(self, number: int) -> bool:
        return self._held_up_to(number) is not None

    def _drop(self, place: int) -> int:
        """Forget the window at this place of the order; its row, which is then neither free nor a window's."""
        self._numbers.pop(place)
        row = self._places.pop(place)
        self._sound[row] = False
        return row

    # For `Hold`

    def _let_go(self, held: "Hold") -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._holds.remove(held)
            self._rows.forget_read()
            self.expire()

    def _torn(self, held: "Hold") -> set[int]:
        """The numbers of those held windows that are not what was written; they are none any more."""
        torn = set()
        for number, row in zip(held.numbers.tolist(), held.rows.tolist(), strict=True):
            if self._sound[row]:
                continue
            if self._rows.is_whole(row):
                self._sound[row] = True
                continue
            torn.add(number)
            with self._lock:
                place = bisect.bisect_left(self._numbers, number)
                if place < len(self._numbers) and self._numbers[place] == number:
                    self._free.append(self._drop(place))
                    if self._is_open:
                        with contextlib.suppress(StateError):
                            self._rows.clear(row)
        if torn:
            log.warning("%d private windows on the disk were torn or damaged; they are left out", len(torn))
        return torn

    def _take(self, rows: NDArray[np.int64]) -> dict[str, Floats]:
        return self._rows.take(rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities of a window."""
        return tuple(self._shapes)


class Hold:
    """Windows of a store, oldest first, that stay what they are until they are let go; as a context, at its end.

    Whoever holds them calls `check` first, on whatever thread it reads on.
    """

    def __init__(self, store: WindowStore, numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self.numbers, self.rows = numbers, rows
        self.first, self.last = (int(numbers[0]), int(numbers[-1])) if len(numbers) else (1, 0)
        self._store = store

    def __len__(self) -> int:
        return len(self.rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.let_go()

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities of a window."""
        return self._store.names

    def check(self) -> Self:
        """Leave out windows that a crash has torn, or the disk damaged. Reads all that this process has not written."""
        torn = self._store._torn(self)
        if torn:
            whole = ~np.isin(self.numbers, list(torn))
            self.numbers, self.rows = self.numbers[whole], self.rows[whole]
        return self

    def take(self, places: Sequence[int] | NDArray[np.integer[Any]]) -> dict[str, Floats]:
        """A copy of the windows at these places, counted from the oldest: per modality (n, T, ...)."""
        return self._store._take(self.rows[np.asarray(places, dtype=np.int64)])

    def let_go(self) -> None:
        """Let new windows take their place; once more does no harm."""
        self._store._let_go(self)
