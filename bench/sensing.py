"""What sensing takes on this machine, from source to stored window: processor, memory, delay, and the store's pace."""

import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from bench.tables import number
from edge.sensing import Sensing
from edge.settings import PrivateWindows
from mekt.modality import Modality, WindowSpec
from mekt.schema import plain
from sensors.quality import Limits
from sensors.seal import Seal
from sensors.source import Block, Item
from sensors.store import WindowStore
from sensors.windows import Window, Windower

# Eight channels of inertial sensors at 1 kHz, in blocks as a driver's buffer gives them, and a depth camera.
IMU = Modality(name="imu", shape=(8,), rate_hz=1000.0, unit="g")
SIDES = ((48, 64), (240, 320))
FRAMES_HZ = 30.0
BLOCK_S = 0.02
SPEC = WindowSpec(window_s=2.56, stride_s=1.28)
CAPACITY = 256
# Of an hour of simulated time these minutes are for what is made once.
WARM_S, HOUR_S = 300.0, 3600.0
LIVE_S = 60.0
QUICK = {"hour_s": 120.0, "live_s": 5.0}
READY_S = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Delays:
    """From handing over the block with a window's last sample, in milliseconds: median, 99 of a hundred, longest."""

    median_ms: float
    most_ms: float
    longest_ms: float

    def __str__(self) -> str:
        return f"{self.median_ms:.1f} / {self.most_ms:.1f} / {self.longest_ms:.1f} ms"


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """Windows that were made and stored, and when: until each was `given`, and until it was `stored`.

    `busy` is what the processor worked until it was stored, which others of this machine cannot lengthen. `grown_mb`:
    anonymous memory at the end less that after the first part of the time, in which all is made that is made once.
    """

    windows: int
    share: float
    given: Delays
    stored: Delays
    busy: Delays
    grown_mb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """With frames of so many pixels: as `fast` as it goes, without waiting, and `live`, in real time.

    Shares are of one core, seconds of the processor by seconds that are sensed; `sensing_share` is in real time, by
    `Sensing`, its threads and wake-ups included.
    """

    frame: tuple[int, int]
    sensing_share: float
    fast: Played
    live: Played


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What the store does with windows of `mb` each, sealed or not, in milliseconds a window."""

    sealed: bool
    mb: float
    add_ms: float
    take_ms: float
    check_ms: float


class Rig:
    """A source that has what it gives ready: in real time, or as fast as it is read. Stamps jitter by a tenth."""

    def __init__(self, frame: tuple[int, int], seconds: float, *, is_live: bool) -> None:
        depth = Modality(name="depth", shape=frame, rate_hz=FRAMES_HZ, unit="m")
        self.modalities: tuple[Modality, ...] = (IMU, depth)
        self._rng, self._seconds, self._is_live = np.random.default_rng(0), seconds, is_live
        ready = [int(READY_S * each.rate_hz) for each in self.modalities]
        self._values = [
            self._rng.normal(size=(count, *each.shape)).astype(np.float32)
            for count, each in zip(ready, self.modalities, strict=True)
        ]
        self._given = [0, 0]
        self.now_s = self._began_s = 0.0

    def open(self) -> None:
        """Begin."""
        self._began_s = time.monotonic()

    def close(self) -> None:
        """Nothing is to be done."""

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """The next block, and the frame that has come meanwhile."""
        if self.now_s >= self._seconds:
            return None
        self.now_s += BLOCK_S
        if self._is_live:
            time.sleep(max(0.0, self._began_s + self.now_s - time.monotonic()))
        items: list[Item] = []
        for place, kind in enumerate(self.modalities):
            first, end = self._given[place], int(self.now_s * kind.rate_hz + 1e-6)
            if end > first:
                self._given[place] = end
                rows = np.arange(first, end)
                t_s = (rows + self._rng.uniform(-0.1, 0.1, len(rows))) / kind.rate_hz
                values = self._values[place][rows % len(self._values[place])]
                items.append(Block(modality=kind.name, t_s=t_s, values=values))
        return items


def measure(frame: tuple[int, int], folder: Path, *, hour_s: float = HOUR_S, live_s: float = LIVE_S) -> Figures:
    """An hour as fast as it goes, then `live_s` in real time, twice."""
    return Figures(
        frame=frame,
        fast=_played(Rig(frame, hour_s, is_live=False), folder / "fast", hour_s),
        live=_played(Rig(frame, live_s, is_live=True), folder / "live", live_s),
        sensing_share=_sensed(frame, folder / "sensed", live_s),
    )


def _played(rig: Rig, folder: Path, seconds: float) -> Played:
    """Every window made and stored, one after the other."""
    shapes = {each.name: SPEC.shape(each) for each in rig.modalities}
    store = WindowStore(folder, shapes, CAPACITY, afresh=True)
    windower, limits = Windower(rig.modalities, SPEC), Limits(gap_share=0.5)
    given_s, stored_s, busy_s = [], [], []
    warm_kb, cpu_s = 0, time.process_time()
    rig.open()
    while (items := rig.read(0.0)) is not None:
        for item in items:
            assert isinstance(item, Block)
            handed_s, worked_s = time.perf_counter(), time.process_time()
            windows = [each for each in windower.feed(item) if limits.exceeded(each.quality) is None]
            made_s = time.perf_counter()
            for window in windows:
                store.add(window)
            if windows:
                given_s.append(made_s - handed_s)
                stored_s.append(time.perf_counter() - handed_s)
                busy_s.append(time.process_time() - worked_s)
        if not warm_kb and rig.now_s >= seconds * WARM_S / HOUR_S:
            warm_kb = anonymous_kb()
    share = (time.process_time() - cpu_s) / seconds
    grown_mb = (anonymous_kb() - warm_kb) / 1024
    store.close()
    given, stored, busy = (_delays(each) for each in (given_s, stored_s, busy_s))
    return Played(windows=len(given_s), share=share, given=given, stored=stored, busy=busy, grown_mb=grown_mb)


def _delays(seconds: Sequence[float]) -> Delays:
    ms = sorted(1000 * each for each in seconds)
    return Delays(median_ms=statistics.median(ms), most_ms=ms[math.ceil(0.99 * len(ms)) - 1], longest_ms=ms[-1])


def _sensed(frame: tuple[int, int], folder: Path, seconds: float) -> float:
    """The share of a core that `Sensing` takes in real time."""
    rig, done = Rig(frame, seconds, is_live=True), threading.Event()
    windows = PrivateWindows(capacity=CAPACITY, least=1, whole_source=True, size_mb=1e5)
    sensing = Sensing([rig], rig.modalities, SPEC, windows, folder=folder, enough=done.set)
    began_s, cpu_s = time.monotonic(), time.process_time()
    sensing.start()
    done.wait(10 * seconds + 60)
    share = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
    sensing.stop(1.0)
    return share


def pace(folder: Path, *, sealed: bool, frame: tuple[int, int] = SIDES[0], count: int = 128, batch: int = 32) -> Pace:
    """Windows kept, taken in batches, and looked at as after a restart; medians.

    Raises:
        MissingPackageError: when they are to be sealed and `cryptography` is not installed.
    """
    kinds = Rig(frame, 0.0, is_live=False).modalities
    shapes = {each.name: SPEC.shape(each) for each in kinds}
    rng, seal = np.random.default_rng(0), Seal(b"k" * 32) if sealed else None
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    store = WindowStore(folder, shapes, count, seal=seal, afresh=True)
    add_s = [_seconds(lambda: store.add(Window(start_s=0.0, values=arrays))) for _ in range(count)]
    store.close()
    again = WindowStore(folder, shapes, count, seal=seal)
    with again.hold() as held:
        check_s = _seconds(held.check) / count
        places = [rng.permutation(count)[:batch] for _ in range(10)]
        take_s = [_seconds(lambda rows=rows: held.take(rows)) / batch for rows in places]  # type: ignore[misc]
    again.close()
    return Pace(
        sealed=sealed,
        mb=sum(array.nbytes for array in arrays.values()) / 1e6,
        add_ms=1000 * statistics.median(add_s),
        take_ms=1000 * statistics.median(take_s),
        check_ms=1000 * check_s,
    )


def _seconds(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def anonymous_kb() -> int:
    """What this process has in memory that is no file's, as Linux counts it; 0 elsewhere."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    lines = status.read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def show_sensing(*, as_json: bool, quick: bool, out: TextIO) -> int:
    """Print it all, for small and for large frames, on one core.

    Raises:
        MissingPackageError: when `cryptography` is not installed.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sizes = QUICK if quick else {"hour_s": HOUR_S, "live_s": LIVE_S}
    with tempfile.TemporaryDirectory(prefix="mekt-sensing-") as name:
        figures = [measure(frame, Path(name) / str(place), **sizes) for place, frame in enumerate(SIDES)]
        paces = [pace(Path(name) / f"pace-{sealed}", sealed=sealed) for sealed in (False, True)]
    if as_json:
        told = {"sensing": [plain(each) for each in figures], "store": [plain(each) for each in paces]}
        print(json.dumps(told), file=out)
        return 0
    print("\n".join([*_sensing_table(figures, sizes["hour_s"]), "", *_store_table(paces)]), file=out)
    return 0


def _sensing_table(figures: Sequence[Figures], hour_s: float) -> list[str]:
    head = ("frames", "time", "core", "windows", "given", "stored", "busy", "memory grew")
    rows = [
        (
            f"{each.frame[0]} x {each.frame[1]}",
            name,
            share,
            str(played.windows),
            str(played.given),
            str(played.stored),
            str(played.busy),
            f"{played.grown_mb:+.1f} MB",
        )
        for each in figures
        for name, share, played in (
            ("as fast as it goes", f"{each.fast.share:.1%}", each.fast),
            ("real", f"{each.sensing_share:.1%}", each.live),
        )
    ]
    return [
        *_table(head, rows),
        "",
        f"- 8 channels at {IMU.rate_hz:g} Hz in blocks of {1000 * BLOCK_S:g} ms and depth frames at {FRAMES_HZ:g} Hz;"
        f" windows of {SPEC.window_s:g} s every {SPEC.stride_s:g} s, resampled, judged and stored; {hour_s:g} s of"
        " simulated time as fast as it goes, on one core.",
        "- Median, 99 of a hundred and longest, from handing over the block that completes a window: until the window"
        " is `given`, and until it is `stored`; `busy` is what the processor works until then. In real time the share"
        " of a core is that of sensing with its threads.",
    ]


def _store_table(paces: Sequence[Pace]) -> list[str]:
    head = ("windows", "MB each", "to keep one", "to take one of a batch", "to look at one after a restart")
    rows = [
        (
            "sealed" if each.sealed else "as they are",
            number(each.mb),
            f"{each.add_ms:.2f} ms",
            f"{each.take_ms:.2f} ms",
            f"{each.check_ms:.2f} ms",
        )
        for each in paces
    ]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
