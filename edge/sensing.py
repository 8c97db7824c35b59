"""Sensing on a device: sources are read on threads of their own, their windows go into the private store."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from edge.turns import Turns
from mekt.errors import SensorError
from mekt.modality import Modality, WindowSpec
from mekt.process import memory_bytes
from sensors.source import Block, Floats, Gap, Item, Source
from sensors.store import WindowStore
from sensors.track import LAG_S
from sensors.windows import Windower

log = logging.getLogger(__name__)

READ_S = 0.5
RETRY_S = 5.0
# Of the machine's memory, what private windows may take. Learning needs the same again, and then some.
MEMORY_SHARE = 0.5
# Windows that are made together, once resampled in float64 and once as they are kept.
COPIES = 4


class Sensing:
    """Reads `sources` until `stop` and keeps the windows of `modalities`. Any thread may ask what is there.

    Sources that have none of the modalities are left alone. Each of the others has a thread of its own, so that none
    waits for another; with `whole_source` they take turns by their samples' times instead, and the same recordings give
    the same windows however fast they are played. One that fails is opened again after `retry_s`.

    `enough` is called once, on a sensing thread, when there are `least` windows and, with `whole_source`, when every
    source has ended as well.

    Raises:
        SensorError: when windows as these would not fit into this machine's memory.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        modalities: Sequence[Modality],
        spec: WindowSpec,
        *,
        capacity: int,
        least: int,
        whole_source: bool,
        enough: Callable[[], None],
        retry_s: float = RETRY_S,
    ) -> None:
        _check_memory(modalities, spec, capacity)
        self._windower = Windower(modalities, spec)
        self._store = WindowStore({each.name: spec.shape(each) for each in modalities}, capacity)
        self._least, self._whole_source, self._enough = least, whole_source, enough
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._after: Sensing | None = None
        self._said_enough = False
        names = {each.name for each in modalities}
        useful = [source for source in sources if names & {each.name for each in source.modalities}]
        groups = [useful] if whole_source and useful else [[source] for source in useful]
        self._open_groups = len(groups)
        self._threads = [threading.Thread(target=self._read, args=(group,), daemon=True) for group in groups]

    def start(self, after: "Sensing | None" = None) -> None:
        """Begin to sense, as soon as `after` has let go of the same sources."""
        self._after = after
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End sensing, and wait for it; False when a source has not returned in time. It may be stopped again."""
        self._stopping.set()
        ends_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, ends_s - time.monotonic()))
        after = self._after
        return not any(thread.is_alive() for thread in self._threads) and (after is None or after.stop(0.0))

    @property
    def count(self) -> int:
        """How many windows are kept."""
        with self._lock:
            return len(self._store)

    def arrays(self) -> dict[str, Floats]:
        """A copy of the windows that are kept: per modality (N, T, ...), as sensed."""
        with self._lock:
            return self._store.arrays()

    def _read(self, sources: Sequence[Source]) -> None:
        while (after := self._after) is not None and not self._stopping.is_set():
            if after.stop(READ_S):
                self._after = None
        problem = ""
        while not self._stopping.is_set():
            source = sources[0] if len(sources) == 1 else Turns(sources)
            try:
                source.open()
                while not self._stopping.is_set():
                    items = source.read(READ_S)
                    if items is None:
                        self._ended()
                        return
                    for item in items:
                        self._take(item)
                    problem = "" if items else problem
            except Exception as error:
                # A driver may raise anything. A device that ceased to sense for it would look well, and learn no more.
                problem = self._report(error, problem)
            finally:
                with contextlib.suppress(Exception):
                    source.close()
            self._stopping.wait(self._retry_s)

    def _report(self, error: Exception, before: str) -> str:
        """What a source suffers from; logged once for as long as it does."""
        expected = isinstance(error, SensorError)
        problem = str(error) if expected else f"{type(error).__name__}: {error}"
        if problem != before:
            log.error("%s; trying again every %g s", problem, self._retry_s, exc_info=None if expected else error)
        return problem

    def _take(self, item: Item) -> None:
        with self._lock:
            match item:
                case Gap():
                    self._windower.gap()
                case Block():
                    for window in self._windower.feed(item):
                        self._store.add(window)
        self._say_enough()

    def _ended(self) -> None:
        with self._lock:
            self._open_groups -= 1
            last, count = self._open_groups == 0, len(self._store)
        if last and count < self._least:
            log.warning(
                "the sources have ended and gave %d windows; learning needs %d: record for longer", count, self._least
            )
        self._say_enough()

    def _say_enough(self) -> None:
        with self._lock:
            there = len(self._store) >= self._least and (self._open_groups == 0 or not self._whole_source)
            first, self._said_enough = there and not self._said_enough, self._said_enough or there
        if first:
            self._enough()


def _check_memory(modalities: Sequence[Modality], spec: WindowSpec, capacity: int) -> None:
    """A plan comes from a peer: what it asks for must not end the process, nor the machine."""
    window_bytes = 4 * sum(spec.values(each) for each in modalities)
    at_once = (LAG_S + spec.window_s) / spec.stride_s + 1
    needed, there = window_bytes * (capacity + COPIES * at_once), MEMORY_SHARE * memory_bytes()
    if needed > there:
        raise SensorError(
            f"{capacity} windows of {window_bytes / 1e6:.3g} MB, and up to {at_once:.3g} made at once, take "
            f"{needed / 1e6:.3g} MB, and this device may use {there / 1e6:.3g}; lower windows.capacity, or ask for "
            "shorter windows or a longer stride"
        )
