"""Sensing on a device: sources are read on threads of their own, their windows go into the private store."""

import logging
import threading
from collections.abc import Callable, Sequence

from mekt.errors import SensorError
from mekt.modality import Modality, WindowSpec
from sensors.source import Block, Floats, Gap, Source
from sensors.store import WindowStore
from sensors.windows import Windower

log = logging.getLogger(__name__)

READ_S = 0.5
RETRY_S = 5.0


class Sensing:
    """Reads `sources` until `stop` and keeps the windows of `modalities`. Any thread may ask what is there.

    `enough` is called once, on a sensing thread, when there are `least` windows and, with `whole_source`, when every
    source has ended as well.
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
    ) -> None:
        self._windower = Windower(modalities, spec)
        self._store = WindowStore({each.name: spec.shape(each) for each in modalities}, capacity)
        self._least, self._whole_source, self._enough = least, whole_source, enough
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._open_sources = len(sources)
        self._said_enough = False
        self._threads = [threading.Thread(target=self._read, args=(each,), daemon=True) for each in sources]

    def start(self) -> None:
        """Begin to sense."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """End sensing, and wait for it."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout_s)

    @property
    def count(self) -> int:
        """How many windows are kept."""
        with self._lock:
            return len(self._store)

    def arrays(self) -> dict[str, Floats]:
        """A copy of the windows that are kept: per modality (N, T, ...), as sensed."""
        with self._lock:
            return self._store.arrays()

    def _read(self, source: Source) -> None:
        while not self._stopping.is_set():
            try:
                source.open()
                while not self._stopping.is_set():
                    items = source.read(READ_S)
                    if items is None:
                        self._ended()
                        return
                    for item in items:
                        self._take(item)
            except SensorError as error:
                log.error("%s; trying again in %g s", error, RETRY_S)
                self._stopping.wait(RETRY_S)
            finally:
                source.close()

    def _take(self, item: Block | Gap) -> None:
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
            self._open_sources -= 1
            count = len(self._store)
        if count < self._least:
            log.warning(
                "a source has ended and there are %d windows; learning needs %d: record for longer", count, self._least
            )
        self._say_enough()

    def _say_enough(self) -> None:
        with self._lock:
            there = len(self._store) >= self._least and (self._open_sources == 0 or not self._whole_source)
            first, self._said_enough = there and not self._said_enough, self._said_enough or there
        if first:
            self._enough()
