"""Sensing: threads that fill the store, say once that there is enough, bear sources that fail, and end when told."""

import errno
import itertools
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.sensing import Sensing
from edge.settings import PrivateWindows
from mekt.errors import SensorError, StateError
from mekt.modality import Modality, WindowSpec
from sensors.faults import FATES, FaultSettings, FaultySource
from sensors.replay import ReplaySource
from sensors.rows import Rows
from sensors.simulator import MODALITIES, simulate
from sensors.source import Block, Floats, Gap, Item, Source
from sensors.stream import Recording, Segment, Stream
from sensors.windows import windows_of
from tests.waiting import WAIT_S, until

ACC = Modality(name="acc", shape=(3,), rate_hz=10.0, unit="g")
TEMP = Modality(name="temp", shape=(1,), rate_hz=5.0, unit="C")
SPEC = WindowSpec(window_s=2.0, stride_s=1.0)
AT_ONCE = 1e6


def stream_of(kind: Modality, seconds: float, begin_s: float = 0.0, seed: int = 0) -> Stream:
    count = int(seconds * kind.rate_hz) + 1
    values = np.random.default_rng((seed, count)).normal(size=(count, *kind.shape)).astype(np.float32)
    return Stream(modality=kind, t_s=begin_s + np.arange(count) / kind.rate_hz, values=values)


def recording_of(*kinds: Modality, seconds: float = 12.0, segments: int = 1) -> Recording:
    """A recording of so many segments, each of them `seconds` long."""
    made = [
        Segment(name=f"s{n}", streams={each.name: stream_of(each, seconds, 100.0 * n, seed=n) for each in kinds})
        for n in range(segments)
    ]
    return Recording(name="made", segments=tuple(made), label_names={})


def replay(recording: Recording, *names: str, speed: float = AT_ONCE) -> ReplaySource:
    return ReplaySource(recording, names or [each.name for each in recording.modalities], speed=speed)


class Scripted:
    """A source written by hand: `open` and each `read` do the next step; behind the last one nothing comes any more."""

    def __init__(self, *script: Sequence[Item] | Exception | None, modalities: tuple[Modality, ...] = (ACC,)) -> None:
        self.modalities = modalities
        self.calls: list[str] = []
        self.exhausted = threading.Event()
        self._script = list(script)
        self._idle = threading.Event()

    def open(self) -> None:
        self.calls.append("open")
        if self._script and isinstance(self._script[0], PermissionError):
            raise self._script.pop(0)  # type: ignore[misc]

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        if not self._script:
            self.exhausted.set()
            self._idle.wait(min(timeout_s, 0.05))
            return ()
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        self.calls.append("close")


def block(begin_s: float, seconds: float, kind: Modality = ACC) -> Block:
    made = stream_of(kind, seconds, begin_s)
    return Block(modality=kind.name, t_s=made.t_s, values=made.values)


class Run:
    """A sensing at work; `enough` holds an entry for each time that it said so."""

    def __init__(self, *sources: Source, folder: Path, modalities: Sequence[Modality] = (ACC,), **options: Any) -> None:
        self.enough: queue.Queue[int] = queue.Queue()
        paces = {"retry_s": 0.01} | {name: options.pop(name) for name in ("retry_s", "lost_s") if name in options}
        windows = PrivateWindows(**{"capacity": 100, "least": 5, **options})
        self.sensing = Sensing(
            sources,
            modalities,
            SPEC,
            windows,
            folder=folder,
            enough=lambda: self.enough.put(self.sensing.count),
            **paces,
        )

    def __enter__(self) -> "Run":
        self.sensing.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.sensing.stop(WAIT_S)

    def wait(self) -> int:
        """How many windows there were when there were enough."""
        return self.enough.get(timeout=WAIT_S)


def arrays(run: Run) -> dict[str, Floats]:
    """A copy of all windows to learn from."""
    with run.sensing.hold().check() as held:
        return held.take(range(len(held)))


def equal(a: dict[str, Floats], b: dict[str, Floats]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("whole_source", [False, True])
def test_a_replayed_recording_fills_the_store_with_its_windows(whole_source: bool, tmp_path: Path) -> None:
    recording = recording_of(ACC, TEMP, segments=2)
    with Run(replay(recording), modalities=(ACC, TEMP), least=20, whole_source=whole_source, folder=tmp_path) as run:
        assert run.wait() == (22 if whole_source else 20)
        until(lambda: run.sensing.count == 22)
    assert equal(arrays(run), windows_of(recording, (ACC, TEMP), SPEC).arrays)


def test_a_simulated_person_fills_the_store(tmp_path: Path) -> None:
    recording = simulate(1, duration_s=30, modalities=("acc", "depth"))
    kinds = (MODALITIES["acc"], MODALITIES["depth"])
    with Run(replay(recording), modalities=kinds, whole_source=True, folder=tmp_path) as run:
        run.wait()
    assert equal(arrays(run), windows_of(recording, kinds, SPEC).arrays)


def test_what_is_enough_is_said_once(tmp_path: Path) -> None:
    with Run(replay(recording_of(ACC, seconds=60)), least=3, folder=tmp_path) as run:
        assert run.wait() >= 3
        until(lambda: run.sensing.count == 59)
    assert run.enough.empty()


def test_the_whole_source_is_waited_for(tmp_path: Path) -> None:
    source = Scripted((Gap(modalities=("acc",)), block(0, 30)))
    with Run(source, least=3, whole_source=True, folder=tmp_path) as run:
        assert source.exhausted.wait(WAIT_S) and run.sensing.count == 29
        assert run.enough.empty()
        source._script.append(None)
        assert run.wait() == 29


def test_a_source_that_ends_with_too_little_says_so(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with Run(replay(recording_of(ACC, seconds=4)), least=50, whole_source=True, folder=tmp_path) as run:
        until(lambda: bool(caplog.records))
    assert "gave 3 windows; learning needs 50" in caplog.text and run.enough.empty()


def test_the_store_keeps_the_newest(tmp_path: Path) -> None:
    recording = recording_of(ACC, seconds=60)
    with Run(replay(recording), capacity=10, whole_source=True, folder=tmp_path) as run:
        assert run.wait() == 10
    assert np.array_equal(arrays(run)["acc"], windows_of(recording, (ACC,), SPEC).arrays["acc"][-10:])


def test_only_the_modalities_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    with Run(replay(recording_of(ACC, TEMP)), modalities=(TEMP,), whole_source=True, folder=tmp_path) as run:
        run.wait()
    assert list(arrays(run)) == ["temp"]


def test_a_source_of_nothing_that_is_asked_for_is_left_alone(tmp_path: Path) -> None:
    other = Scripted((Gap(modalities=("temp",)),), modalities=(TEMP,))
    with Run(replay(recording_of(ACC)), other, whole_source=True, folder=tmp_path) as run:
        assert run.wait() == 11
    assert other.calls == []


@pytest.mark.parametrize("fast", ["acc", "temp"])
def test_two_recordings_that_take_turns_give_the_windows_of_one(fast: str, tmp_path: Path) -> None:
    recording = recording_of(ACC, TEMP, seconds=90, segments=3)
    speeds = {"acc": 3000.0, "temp": 3000.0, fast: AT_ONCE}
    sources = [replay(recording, name, speed=speed) for name, speed in speeds.items()]
    with Run(*sources, modalities=(ACC, TEMP), capacity=1000, whole_source=True, folder=tmp_path) as run:
        assert run.wait() == 3 * 89
    assert equal(arrays(run), windows_of(recording, (ACC, TEMP), SPEC).arrays)


def test_two_live_sources_do_not_wait_for_each_other(tmp_path: Path) -> None:
    silent = Scripted(modalities=(TEMP,))
    lively = Scripted((block(0, 5),), (block(5.1, 5),))
    with Run(silent, lively, modalities=(ACC, TEMP), least=9, folder=tmp_path) as run:
        assert silent.exhausted.wait(WAIT_S) and lively.exhausted.wait(WAIT_S)
        assert run.sensing.count == 0
        silent._script.append((block(0, 10, TEMP),))
        assert run.wait() == 9


QUICK = Modality(name="quick", shape=(1,), rate_hz=100.0, unit="C")


def test_a_modality_that_is_lost_is_done_without_and_taken_up_again(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    failing = Scripted((block(0, 10, QUICK),), modalities=(QUICK,))
    lively = Scripted((block(0, 10),))
    seconds = itertools.count(10)

    def fed(*sources: Scripted) -> bool:
        """Another second of what these sense."""
        begin_s = float(next(seconds))
        for source in sources:
            source._script.append((block(begin_s, 0.95, source.modalities[0]),))
        return True

    with Run(failing, lively, modalities=(ACC, QUICK), least=5, lost_s=0.5, folder=tmp_path) as run:
        assert run.wait() >= 5
        failing._script.append(SensorError("unplugged"))
        until(lambda: fed(lively) and set(arrays(run)) == {"acc"})
        assert run.sensing.modalities == ("acc",) and run.sensing.count >= 5
        # It is back: what is sensed together joins what was before.
        until(lambda: fed(lively, failing) and set(arrays(run)) == {"acc", "quick"} and run.sensing.count > 12)
    assert "nothing comes of quick any more; going on with acc" in caplog.text
    assert "all modalities are there again: acc, quick" in caplog.text


def test_a_source_that_has_ended_is_not_lost(tmp_path: Path) -> None:
    # Neither begins with a gap, which would take what has come of the other.
    ending, lively = Scripted((block(0, 10, QUICK),), None, modalities=(QUICK,)), Scripted((block(0, 10),))
    with Run(ending, lively, modalities=(ACC, QUICK), lost_s=0.1, folder=tmp_path) as run:
        assert run.wait() >= 5
        for second in range(10, 20):
            lively._script.append((block(second, 0.9),))
            threading.Event().wait(0.05)
        until(lambda: not lively._script and run.sensing.modalities == ("acc", "quick"))


FAULTS = [SensorError("the cable is out"), OSError(5, "Input/output error"), ZeroDivisionError("a driver's fault")]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("whole_source", [False, True])
def test_a_source_that_fails_is_opened_again(fault: Exception, whole_source: bool, tmp_path: Path) -> None:
    source = Scripted((block(0, 2),), fault, fault, (block(50, 10),), None)
    with Run(source, least=10, whole_source=whole_source, folder=tmp_path) as run:
        assert run.wait() == 10
        until(lambda: source.calls == ["open", "close"] * 3)


def test_a_sensor_that_is_not_there_at_first_is_opened_later(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    absent = PermissionError(13, "Permission denied")
    source = Scripted(absent, absent, absent, (block(0, 10),))
    with Run(source, least=9, folder=tmp_path) as run:
        assert run.wait() == 9
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1 and "Permission denied; trying again every 0.01 s" in told[0].getMessage()


def test_a_sensor_with_every_fault_there_is_gives_windows_and_the_same_ones_again(tmp_path: Path) -> None:
    faults = FaultSettings(
        seed=2,
        drift_ppm=400,
        jitter_s=0.005,
        duplicate=0.02,
        backward=0.02,
        rate=0.9,
        dropped=0.05,
        saturates_at=1.5,
        gap_every_s=60,
        gap_s=2,
        unplug_every_s=60,
        unplugged_s=5,
    )
    recording, runs = simulate(1, duration_s=600, modalities=["acc"]), []
    options = {"capacity": 1000, "least": 200, "whole_source": True}
    for again in range(2):
        source = FaultySource(replay(recording), faults, speed=AT_ONCE)
        with Run(source, modalities=[MODALITIES["acc"]], folder=tmp_path / str(again), **options) as run:
            count = run.wait()
        account = source.accounts["acc"]
        assert set(account.counts) == set(FATES) and account.counts.total() == 600 * 50
        assert all(account.changes[change] for change in ("duplicate", "backward", "saturated"))
        runs.append(arrays(run))
        # Every window lies in a stretch without a hole: two of them are lost with each that is torn.
        assert 400 < count < 600
        assert np.isfinite(runs[-1]["acc"]).all() and np.abs(runs[-1]["acc"]).max() == 1.5
    assert equal(*runs)


def test_samples_of_another_shape_are_a_failure_of_their_source_alone(tmp_path: Path) -> None:
    wrong = Block(modality="acc", t_s=np.arange(3.0), values=np.zeros((3, 2), dtype=np.float32))
    source = Scripted((wrong, block(0, 2)), (block(10, 10),))
    with Run(source, least=9, folder=tmp_path) as run:
        assert run.wait() == 9


def test_samples_that_never_fit_are_complained_of_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    wrong = Block(modality="acc", t_s=np.arange(3.0), values=np.zeros((3, 2), dtype=np.float32))
    source = Scripted(*[(wrong,)] * 3, (block(0, 10),), (wrong,), (block(20, 10),))
    with Run(source, least=18, folder=tmp_path) as run:
        assert run.wait() == 18
    told = [record for record in caplog.records if "trying again" in record.getMessage()]
    assert len(told) == 2, "and once more after it was well"


def test_values_that_are_no_numbers_reach_no_window(tmp_path: Path) -> None:
    bad = block(0, 10)
    bad.values[3] = np.nan
    with Run(Scripted((bad,)), least=9, folder=tmp_path) as run:
        run.wait()
    assert np.isfinite(arrays(run)["acc"]).all()


def test_windows_that_are_worse_than_allowed_are_counted_by_reason_and_not_kept(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    good, bad, clipped = block(0, 10), block(100, 10), block(200, 10)
    bad = Block(modality="acc", t_s=bad.t_s[::2], values=bad.values[::2])
    clipped.values[:, 1] = 8.0
    source = Scripted((good, bad, clipped, block(300, 10)), None)
    limits: dict[str, Any] = {"worst_gap_share": 0.4, "worst_saturated_share": 0.5, "ranges": {"acc": (-8.0, 8.0)}}
    with Run(source, whole_source=True, **limits, folder=tmp_path) as run:
        assert run.wait() == 18
        assert run.sensing.passed_over == {"acc: gaps": 9, "acc: saturated": 9}
    kept = arrays(run)["acc"]
    assert np.array_equal(kept[0], good.values[:20]) and kept.max() < 8
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "windows that are not learned from: 1 so far (acc: gaps)",
        "windows that are not learned from: 1 so far (acc: saturated)",
    ]


def test_stop_ends_every_thread_and_closes_every_source(tmp_path: Path) -> None:
    before = threading.active_count()
    sources = [Scripted((block(0, 5),)), Scripted(modalities=(TEMP,))]
    run = Run(*sources, modalities=(ACC, TEMP), folder=tmp_path)
    with run:
        assert all(source.exhausted.wait(WAIT_S) for source in sources)
        assert threading.active_count() == before + 2
    assert threading.active_count() == before
    assert [source.calls for source in sources] == [["open", "close"]] * 2
    assert run.sensing.stop(0.0), "a second stop does no harm"


def test_stop_does_not_wait_for_the_next_attempt(tmp_path: Path) -> None:
    source = Scripted(SensorError("gone"))
    with Run(source, retry_s=3600.0, folder=tmp_path):
        until(lambda: source.calls == ["open", "close"])


def test_what_was_never_started_is_stopped_without_harm(tmp_path: Path) -> None:
    assert Run(Scripted(), folder=tmp_path).sensing.stop(0.0)


class Stuck(Scripted):
    """Its first read does not return before it is let go."""

    def __init__(self) -> None:
        super().__init__((block(0, 10),))
        self.let_go = threading.Event()

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        self.exhausted.set()
        assert self.let_go.wait(WAIT_S)
        return super().read(timeout_s)


def test_a_source_that_does_not_return_is_told(tmp_path: Path) -> None:
    source = Stuck()
    run = Run(source, folder=tmp_path)
    run.sensing.start()
    assert source.exhausted.wait(WAIT_S)
    assert not run.sensing.stop(0.01)
    source.let_go.set()
    assert run.sensing.stop(WAIT_S) and source.calls == ["open", "close"]


def test_nobody_reads_a_source_before_the_former_has_let_go_of_it(tmp_path: Path) -> None:
    source = Stuck()
    first, second, third = (
        Run(source, folder=tmp_path),
        Run(source, folder=tmp_path),
        Run(source, least=9, folder=tmp_path),
    )
    first.sensing.start()
    assert source.exhausted.wait(WAIT_S)
    assert not first.sensing.stop(0.0)
    second.sensing.start(after=first.sensing)
    assert not second.sensing.stop(0.01), "the second has nothing of its own, and the first is still at it"
    third.sensing.start(after=second.sensing)
    assert source.calls == ["open"]
    source.let_go.set()
    source._script.append((block(100, 10),))
    assert third.wait() == 9
    assert source.calls == ["open", "close", "open"]
    assert third.sensing.stop(WAIT_S) and second.sensing.stop(0.0) and first.sensing.stop(0.0)


@pytest.mark.parametrize("spec", [WindowSpec(window_s=1e8, stride_s=1e6), WindowSpec(window_s=1e-7, stride_s=1e-9)])
def test_windows_that_no_memory_holds_are_refused(spec: WindowSpec, tmp_path: Path) -> None:
    windows = PrivateWindows(capacity=10, least=1, size_mb=1e9)
    with pytest.raises(SensorError, match=r"made at once, take .* and this device may use .* ask for shorter"):
        Sensing([], [ACC], spec, windows, folder=tmp_path, enough=lambda: None)


def test_windows_take_no_more_disk_than_is_said_and_are_refused_where_too_few_fit(tmp_path: Path) -> None:
    row_bytes = 20 * 3 * 4
    with Run(
        replay(recording_of(ACC, seconds=60)), whole_source=True, size_mb=25 * row_bytes / 1e6, folder=tmp_path
    ) as run:
        assert run.wait() == 20
    assert (tmp_path / "all" / "acc").stat().st_size == 25 * row_bytes
    few = PrivateWindows(capacity=64, least=8, size_mb=9 * row_bytes / 1e6)
    with pytest.raises(
        SensorError, match=r"^8 windows of 0\.00024 MB take more disk than the 0\.00216 MB of windows.size"
    ):
        Sensing([], [ACC], SPEC, few, folder=tmp_path, enough=lambda: None)


def test_after_a_restart_a_live_device_goes_on_with_the_windows_that_it_had(tmp_path: Path) -> None:
    with Run(Scripted((block(0, 10),)), least=9, folder=tmp_path) as run:
        assert run.wait() == 9
        before = arrays(run)
    silent = Scripted()
    with Run(silent, least=9, folder=tmp_path) as run:
        assert run.wait() == 9, "at once, though nothing is sensed"
        assert equal(arrays(run), before)
        silent._script.append((block(100, 3),))
        until(lambda: run.sensing.count == 11)
    with Run(Scripted(), least=9, folder=tmp_path, modalities=(replace(ACC, unit="m/s2"),)) as run:
        assert run.sensing.count == 0, "other windows are none of its own"


def test_a_source_that_is_sensed_again_begins_its_windows_anew(tmp_path: Path) -> None:
    recording, made = recording_of(ACC, seconds=30), []
    for _ in range(2):
        with Run(replay(recording), whole_source=True, capacity=20, folder=tmp_path) as run:
            assert run.wait() == 20
            made.append(arrays(run))
    # Stopped in the middle, what was kept so far is not learned from twice either.
    with Run(Scripted((block(0, 12),)), whole_source=True, folder=tmp_path) as run:
        until(lambda: run.sensing.count == 11)
    with Run(replay(recording), whole_source=True, capacity=20, folder=tmp_path) as run:
        assert run.wait() == 20
        made.append(arrays(run))
    assert equal(made[0], made[1]) and equal(made[0], made[2])


def test_a_recording_that_is_played_again_gives_no_window_twice_and_one_beside_a_sensor_takes_none_away(
    tmp_path: Path,
) -> None:
    recording = recording_of(ACC, TEMP, seconds=30)
    for _ in range(2):
        with Run(replay(recording, "acc"), least=29, folder=tmp_path / "played") as run:
            assert run.wait() == 29
    faulty = FaultySource(replay(recording, "acc"), FaultSettings())
    with Run(faulty, least=29, folder=tmp_path / "played") as run:
        assert run.wait() == 29
    sensor = Scripted((block(0, 30, TEMP),), modalities=(TEMP,))
    for source in (sensor, Scripted(modalities=(TEMP,))):
        with Run(replay(recording, "acc"), source, modalities=(ACC, TEMP), least=29, folder=tmp_path / "beside") as run:
            assert run.wait() == 29


def test_what_is_sensed_while_a_round_is_learned_changes_nothing_of_what_it_learns_from(tmp_path: Path) -> None:
    source = Scripted((block(0, 20),))
    with Run(source, capacity=12, least=9, folder=tmp_path) as run:
        run.wait()
        until(lambda: not source._script)
        with run.sensing.hold().check() as held:
            before = held.take(range(len(held)))
            for second in range(30, 90, 20):
                source._script.append((block(second, 19),))
            until(lambda: not source._script and source.exhausted.is_set())
            source._script.append((block(200, 2),))
            until(lambda: not source._script)
            assert equal(held.take(range(len(held))), before)
        until(lambda: run.sensing.count == 12)
        newest = block(200, 2).values[:20]
        until(lambda: np.array_equal(arrays(run)["acc"][-1], newest))


def test_when_its_windows_cannot_be_kept_a_source_is_read_on_and_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Rows, *_: object) -> None:
        raise StateError("the disk is full") from OSError(errno.ENOSPC, "No space left on device")

    source = Scripted((block(0, 10),), (block(10, 10),))
    with Run(source, least=9, folder=tmp_path) as run:
        run.wait()
        until(lambda: not source._script)
        count = run.sensing.count
        monkeypatch.setattr(Rows, "write", full)
        source._script.append((block(20, 9.9),))
        until(lambda: run.sensing.passed_over.get("the disk is full", 0) == 10)
        monkeypatch.undo()
        source._script.append((block(30, 5),))
        until(lambda: run.sensing.count > count - 10)
        assert source.calls == ["open"]


def test_a_former_sensing_keeps_nothing_once_it_was_told_to_stop(tmp_path: Path) -> None:
    source = Stuck()
    first = Run(source, folder=tmp_path)
    first.sensing.start()
    assert source.exhausted.wait(WAIT_S) and not first.sensing.stop(0.0)
    with Run(Scripted((block(500, 10),)), least=9, folder=tmp_path) as run:
        assert run.wait() == 9
        source.let_go.set()
        assert first.sensing.stop(WAIT_S)
        assert run.sensing.count == 9 and np.array_equal(arrays(run)["acc"][0], block(500, 10).values[:20])


def test_windows_of_the_modalities_that_are_left_do_not_outlive_the_process(tmp_path: Path) -> None:
    (tmp_path / "rest").mkdir()
    (tmp_path / "rest" / "acc").write_bytes(b"private")
    with Run(Scripted(), folder=tmp_path):
        assert not (tmp_path / "rest").exists()


def test_a_gap_of_one_source_costs_only_the_windows_across_it(tmp_path: Path) -> None:
    cut = (block(0, 4.9, TEMP), Gap(modalities=("temp",)), block(5, 5, TEMP))
    sources = Scripted((block(0, 10),)), Scripted(cut, modalities=(TEMP,))
    with Run(*sources, modalities=(ACC, TEMP), least=6, folder=tmp_path) as run:
        assert run.wait() >= 6
        until(lambda: run.sensing.count == 8)
        until(lambda: all(not source._script for source in sources))
        assert run.sensing.count == 8, "all but the one that begins at 4 s"
