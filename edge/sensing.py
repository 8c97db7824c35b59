"""Sensing on a device: sources are read on threads of their own, their windows go into the private store."""

import contextlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.settings import PrivateWindows
from edge.turns import Turns
from mekt import catalogue
from mekt.errors import SensorError, StateError
from mekt.modality import Modality, WindowSpec
from mekt.process import memory_bytes
from mekt.schema import plain
from sensors.faults import FaultySource
from sensors.lasting import Lasting
from sensors.replay import ReplaySource
from sensors.rows import discard
from sensors.seal import Seal
from sensors.source import Block, Item, Source
from sensors.store import Hold, WindowStore, largest_capacity
from sensors.track import LAG_S
from sensors.windows import Window, Windower

log = logging.getLogger(__name__)

READ_S = 0.5
RETRY_S = 5.0
# A modality is lost when nothing of it has come for so long, and for so many samples.
LOST_S, LOST_SAMPLES = 30.0, 10
# Of the machine's memory, what windows may take while they are made. Learning needs some too.
MEMORY_SHARE = 0.5
# Windows that are made together, once resampled in float64 and once as they are kept.
COPIES = 4
# Sources that a restart plays from the beginning; faults are given to recordings alone.
PLAYED = (ReplaySource, FaultySource)


class Sensing:
    """Reads `sources` until `stop` and keeps the windows of `modalities` in `folder`. Any thread may ask what is there.

    What is there from before a restart is taken up; when the same is sensed again it is not: when all sources are
    recordings, or with `windows.whole_source`.

    Sources that have none of the modalities are left alone. Each of the others has a thread of its own, so that none
    waits for another; with `windows.whole_source` they take turns by their samples' times instead, and the same
    recordings give the same windows however fast they are played. One that fails is opened again after `retry_s`.

    When a modality is lost, windows of the others are kept beside those of all, and are what there is until it returns.
    A disk that takes no more costs windows, which are counted in `passed_over` too, and nothing else.

    Windows that are worse than the settings allow are counted in `passed_over`, by reason, and not kept.

    `enough` is called once, on a sensing thread, when there are `windows.least` and, with `whole_source`, when every
    source has ended as well.

    Raises:
        SensorError: when windows as these would not fit into this machine's memory, or too few of them on its disk.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        modalities: Sequence[Modality],
        spec: WindowSpec,
        windows: PrivateWindows,
        *,
        folder: Path,
        enough: Callable[[], None],
        seal: Seal | None = None,
        retry_s: float = RETRY_S,
        lost_s: float = LOST_S,
    ) -> None:
        _check_memory(modalities, spec)
        self._capacity = _capacity(modalities, spec, windows)
        self._modalities = {each.name: each for each in modalities}
        self._spec, self._windows, self._lost_s = spec, windows, lost_s
        self._folder, self._seal = folder, seal
        # Windows of all modalities, once it has begun; of those that are left, when not all are.
        self._whole: _Kept | None = None
        self._rest: _Kept | None = None
        self._heard_at_s = dict.fromkeys(self._modalities, time.monotonic())
        self._ended_names: set[str] = set()
        self._least, self._whole_source, self._enough = windows.least, windows.whole_source, enough
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._after: Sensing | None = None
        self._said_enough = False
        names = {each.name for each in modalities}
        useful = [source for source in sources if names & {each.name for each in source.modalities}]
        groups = [useful] if windows.whole_source and useful else [[source] for source in useful]
        self._open_groups = len(groups)
        self._again = windows.whole_source or (bool(useful) and all(isinstance(each, PLAYED) for each in useful))
        self._threads = [threading.Thread(target=self._read, args=(group,), daemon=True) for group in groups]

    def start(self, after: "Sensing | None" = None) -> None:
        """Begin to sense, as soon as `after`, which was told to stop, has let go of the same sources.

        Raises:
            StateError: when windows cannot be kept in the folder.
        """
        self._after = after
        with self._lock:
            try:
                discard(self._folder / "rest")
            except OSError as error:
                raise StateError(
                    f"{self._folder}: cannot be emptied ({error.strerror}); mend its permissions",
                    catalogue.of_disk(error),
                ) from error
            self._whole = self._kept("all", list(self._modalities.values()), self._capacity)
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End sensing, and wait for it; False when a source has not returned in time. It may be stopped again.

        From then on no window is kept any more. Those that are there can be held.
        """
        with self._lock:
            self._stopping.set()
            for kept in (self._whole, self._rest):
                if kept is not None:
                    kept.store.close()
        ends_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, ends_s - time.monotonic()))
        after = self._after
        return not any(thread.is_alive() for thread in self._threads) and (after is None or after.stop(0.0))

    @property
    def count(self) -> int:
        """How many windows there are to learn from."""
        with self._lock:
            return self._count()

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is sensed at present, in order of name."""
        with self._lock:
            return tuple(sorted(self._modalities if self._rest is None else self._rest.names))

    @property
    def passed_over(self) -> dict[str, int]:
        """How many windows were not good enough to learn from, by reason."""
        with self._lock:
            return {} if self._whole is None else dict(self._whole.passed_over)

    @property
    def counts(self) -> dict[str, int]:
        """What became of all samples and windows of all modalities (`Windower.counts`)."""
        with self._lock:
            return {} if self._whole is None else self._whole.counts

    def hold(self) -> Hold:
        """The windows to learn from, as sensed, of the modalities that are there. Whoever holds them lets them go."""
        with self._lock:
            used = self._used()
            assert used is not None, "there is nothing to hold before it has begun"
            return used.store.hold()

    def _used(self) -> "_Kept | None":
        """Windows of all modalities; those of the rest once there are enough of them."""
        rest = self._rest
        return rest if rest is not None and len(rest.store) >= self._least else self._whole

    def _count(self) -> int:
        used = self._used()
        if used is None:
            return 0
        used.store.expire()
        return len(used.store)

    def _kept(self, name: str, modalities: Sequence[Modality], capacity: int) -> "_Kept":
        """Where windows of these modalities are kept, under this name."""
        store = WindowStore(
            self._folder / name,
            {each.name: self._spec.shape(each) for each in modalities},
            capacity,
            kind=json.dumps(
                [plain(self._spec), [plain(each) for each in sorted(modalities, key=lambda each: each.name)]]
            ),
            most_age_s=self._windows.most_age_s,
            seal=self._seal,
            # Whatever is there of such a source is sensed again; the rest is of another time.
            afresh=self._again or name != "all",
        )
        return _Kept(modalities, self._spec, self._windows, store)

    def _read(self, sources: Sequence[Source]) -> None:
        while (after := self._after) is not None and not self._stopping.is_set():
            if after.stop(READ_S):
                self._after = None
        self._say_enough()
        source = sources[0] if len(sources) == 1 else Turns(sources)
        lasting = Lasting(source, self._retry_s, wait=self._stopping.wait)
        with contextlib.closing(lasting):
            while not self._stopping.is_set():
                items = lasting.read(READ_S)
                if items is None:
                    self._ended(sources)
                    return
                try:
                    for item in items:
                        self._take(item)
                    self._notice_losses(time.monotonic())
                except Exception as error:
                    # A device that ceased to sense for it would look well, and learn no more.
                    lasting.failed(error)

    def _take(self, item: Item) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            if isinstance(item, Block) and item.modality in self._heard_at_s:
                self._heard_at_s[item.modality] = time.monotonic()
            for kept in (self._whole, self._rest):
                if kept is not None:
                    kept.take(item)
        self._say_enough()

    def _notice_losses(self, now_s: float) -> None:
        """Turn to the modalities that still come, or come again. What has ended by itself is not lost."""
        if self._whole_source:
            return
        with self._lock:
            lost = {
                name
                for name, each in self._modalities.items()
                if name not in self._ended_names
                and now_s - self._heard_at_s[name] > max(self._lost_s, LOST_SAMPLES / each.rate_hz)
            }
            left = frozenset(self._modalities) - lost
            if left == (frozenset(self._modalities) if self._rest is None else self._rest.names) or not left:
                return
            if self._stopping.is_set():
                return
            if self._rest is not None:
                self._rest.store.close()
            self._rest = None
            if lost:
                rest = [self._modalities[name] for name in sorted(left)]
                self._rest = self._kept("rest", rest, max(self._least, self._capacity // 2))
        if lost:
            log.warning(
                "nothing comes of %s any more; going on with %s", ", ".join(sorted(lost)), ", ".join(sorted(left))
            )
        else:
            log.info("all modalities are there again: %s", ", ".join(sorted(left)))

    def _ended(self, sources: Sequence[Source]) -> None:
        with self._lock:
            self._ended_names |= {each.name for source in sources for each in source.modalities}
            self._open_groups -= 1
            last, count = self._open_groups == 0, self._count()
        if last and count < self._least:
            log.warning(
                "the sources have ended and gave %d windows; learning needs %d: record for longer", count, self._least
            )
        self._say_enough()

    def _say_enough(self) -> None:
        with self._lock:
            there = self._count() >= self._least and (self._open_groups == 0 or not self._whole_source)
            first, self._said_enough = there and not self._said_enough, self._said_enough or there
        if first:
            self._enough()


class _Kept:
    """Windows of some modalities, and what makes them."""

    def __init__(
        self, modalities: Sequence[Modality], spec: WindowSpec, windows: PrivateWindows, store: WindowStore
    ) -> None:
        self.names = frozenset(each.name for each in modalities)
        self.store = store
        self.passed_over: Counter[str] = Counter()
        self._limits = windows.limits
        self._windower = Windower(modalities, spec, windows.ends)

    @property
    def counts(self) -> dict[str, int]:
        """What became of samples and windows so far."""
        return self._windower.counts

    def take(self, item: Item) -> None:
        """Keep the windows that the item completes and that are good enough."""
        for window in self._windower.feed(item):
            reason = self._limits.exceeded(window.quality)
            if reason is None:
                self._keep(window)
            else:
                self._pass_over(reason)

    def _keep(self, window: Window) -> None:
        try:
            self.store.add(window)
        except StateError as error:
            self._pass_over(str(error))

    def _pass_over(self, reason: str) -> None:
        """Count it, and say so at the first and at each tenfold."""
        self.passed_over[reason] += 1
        count = self.passed_over[reason]
        if count == 10 ** (len(str(count)) - 1):
            log.warning("windows that are not learned from: %d so far (%s)", count, reason)


def _check_memory(modalities: Sequence[Modality], spec: WindowSpec) -> None:
    """A plan comes from a peer: what it asks for must not end the process, nor the machine."""
    window_bytes = 4 * sum(spec.values(each) for each in modalities)
    at_once = (LAG_S + spec.window_s) / spec.stride_s + 1
    needed, there = window_bytes * COPIES * at_once, MEMORY_SHARE * memory_bytes()
    if needed > there:
        raise SensorError(
            f"windows of {window_bytes / 1e6:.3g} MB, up to {at_once:.3g} of them made at once, take "
            f"{needed / 1e6:.3g} MB, and this device may use {there / 1e6:.3g}; ask for shorter windows or a longer "
            "stride",
            catalogue.MEMORY_TOO_SMALL,
        )


def _capacity(modalities: Sequence[Modality], spec: WindowSpec, windows: PrivateWindows) -> int:
    """How many windows are kept: as many as the settings say and their bytes allow."""
    shapes = {each.name: spec.shape(each) for each in modalities}
    most = largest_capacity(shapes, int(windows.size_mb * 1e6))
    if most < windows.least:
        raise SensorError(
            f"{windows.least} windows of {4e-6 * sum(spec.values(each) for each in modalities):.3g} MB take more disk "
            f"than the {windows.size_mb:g} MB of windows.size_mb; raise it, or ask for shorter windows",
            catalogue.MEMORY_TOO_SMALL,
        )
    if most < windows.capacity:
        log.info("%d windows fit into the %g MB of windows.size_mb", most, windows.size_mb)
    return min(most, windows.capacity)
