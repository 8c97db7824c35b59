"""Sensing: threads that fill the store, say once that there is enough, bear sources that fail, and end when told."""

import itertools
import logging
import queue
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edge.sensing import Sensing
from edge.settings import PrivateWindows
from mekt.errors import SensorError
from mekt.modality import Modality, WindowSpec
from sensors.replay import ReplaySource
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

    def __init__(self, *sources: Source, modalities: Sequence[Modality] = (ACC,), **options: Any) -> None:
        self.enough: queue.Queue[int] = queue.Queue()
        paces = {"retry_s": 0.01} | {name: options.pop(name) for name in ("retry_s", "lost_s") if name in options}
        windows = PrivateWindows(**{"capacity": 100, "least": 5, **options})
        self.sensing = Sensing(
            sources, modalities, SPEC, windows, enough=lambda: self.enough.put(self.sensing.count), **paces
        )

    def __enter__(self) -> "Run":
        self.sensing.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.sensing.stop(WAIT_S)

    def wait(self) -> int:
        """How many windows there were when there were enough."""
        return self.enough.get(timeout=WAIT_S)


def equal(a: dict[str, Floats], b: dict[str, Floats]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("whole_source", [False, True])
def test_a_replayed_recording_fills_the_store_with_its_windows(whole_source: bool) -> None:
    recording = recording_of(ACC, TEMP, segments=2)
    with Run(replay(recording), modalities=(ACC, TEMP), least=20, whole_source=whole_source) as run:
        assert run.wait() == (22 if whole_source else 20)
        until(lambda: run.sensing.count == 22)
    assert equal(run.sensing.arrays(), windows_of(recording, (ACC, TEMP), SPEC).arrays)


def test_a_simulated_person_fills_the_store() -> None:
    recording = simulate(1, duration_s=30, modalities=("acc", "depth"))
    kinds = (MODALITIES["acc"], MODALITIES["depth"])
    with Run(replay(recording), modalities=kinds, whole_source=True) as run:
        run.wait()
    assert equal(run.sensing.arrays(), windows_of(recording, kinds, SPEC).arrays)


def test_what_is_enough_is_said_once() -> None:
    with Run(replay(recording_of(ACC, seconds=60)), least=3) as run:
        assert run.wait() >= 3
        until(lambda: run.sensing.count == 59)
    assert run.enough.empty()


def test_the_whole_source_is_waited_for() -> None:
    source = Scripted((Gap(), block(0, 30)))
    with Run(source, least=3, whole_source=True) as run:
        assert source.exhausted.wait(WAIT_S) and run.sensing.count == 29
        assert run.enough.empty()
        source._script.append(None)
        assert run.wait() == 29


def test_a_source_that_ends_with_too_little_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with Run(replay(recording_of(ACC, seconds=4)), least=50, whole_source=True) as run:
        until(lambda: bool(caplog.records))
    assert "gave 3 windows; learning needs 50" in caplog.text and run.enough.empty()


def test_the_store_keeps_the_newest() -> None:
    recording = recording_of(ACC, seconds=60)
    with Run(replay(recording), capacity=10, whole_source=True) as run:
        assert run.wait() == 10
    assert np.array_equal(run.sensing.arrays()["acc"], windows_of(recording, (ACC,), SPEC).arrays["acc"][-10:])


def test_only_the_modalities_that_are_asked_for_are_kept() -> None:
    with Run(replay(recording_of(ACC, TEMP)), modalities=(TEMP,), whole_source=True) as run:
        run.wait()
    assert list(run.sensing.arrays()) == ["temp"]


def test_a_source_of_nothing_that_is_asked_for_is_left_alone() -> None:
    other = Scripted((Gap(),), modalities=(TEMP,))
    with Run(replay(recording_of(ACC)), other, whole_source=True) as run:
        assert run.wait() == 11
    assert other.calls == []


@pytest.mark.parametrize("fast", ["acc", "temp"])
def test_two_recordings_that_take_turns_give_the_windows_of_one(fast: str) -> None:
    recording = recording_of(ACC, TEMP, seconds=90, segments=3)
    speeds = {"acc": 3000.0, "temp": 3000.0, fast: AT_ONCE}
    sources = [replay(recording, name, speed=speed) for name, speed in speeds.items()]
    with Run(*sources, modalities=(ACC, TEMP), capacity=1000, whole_source=True) as run:
        assert run.wait() == 3 * 89
    assert equal(run.sensing.arrays(), windows_of(recording, (ACC, TEMP), SPEC).arrays)


def test_two_live_sources_do_not_wait_for_each_other() -> None:
    silent = Scripted(modalities=(TEMP,))
    lively = Scripted((block(0, 5),), (block(5.1, 5),))
    with Run(silent, lively, modalities=(ACC, TEMP), least=9) as run:
        assert silent.exhausted.wait(WAIT_S) and lively.exhausted.wait(WAIT_S)
        assert run.sensing.count == 0
        silent._script.append((block(0, 10, TEMP),))
        assert run.wait() == 9


QUICK = Modality(name="quick", shape=(1,), rate_hz=100.0, unit="C")


def test_a_modality_that_is_lost_is_done_without_and_taken_up_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    failing = Scripted((block(0, 10, QUICK),), SensorError("unplugged"), modalities=(QUICK,))
    lively = Scripted((block(0, 10),))
    seconds = itertools.count(10)

    def fed(*sources: Scripted) -> bool:
        """Another second of what these sense."""
        begin_s = float(next(seconds))
        for source in sources:
            source._script.append((block(begin_s, 0.95, source.modalities[0]),))
        return True

    with Run(failing, lively, modalities=(ACC, QUICK), least=5, lost_s=0.5) as run:
        assert run.wait() >= 5
        until(lambda: fed(lively) and set(run.sensing.arrays()) == {"acc"})
        assert run.sensing.modalities == ("acc",) and run.sensing.count >= 5
        # It is back: what is sensed together joins what was before.
        until(lambda: fed(lively, failing) and set(run.sensing.arrays()) == {"acc", "quick"} and run.sensing.count > 12)
    assert "nothing comes of quick any more; going on with acc" in caplog.text
    assert "all modalities are there again: acc, quick" in caplog.text


def test_a_source_that_has_ended_is_not_lost() -> None:
    lively = Scripted((block(0, 10),))
    with Run(replay(recording_of(QUICK, seconds=10)), lively, modalities=(ACC, QUICK), lost_s=0.1) as run:
        assert run.wait() >= 5
        for second in range(10, 20):
            lively._script.append((block(second, 0.9),))
            threading.Event().wait(0.05)
        until(lambda: not lively._script and run.sensing.modalities == ("acc", "quick"))


FAULTS = [SensorError("the cable is out"), OSError(5, "Input/output error"), ZeroDivisionError("a driver's fault")]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("whole_source", [False, True])
def test_a_source_that_fails_is_opened_again(fault: Exception, whole_source: bool) -> None:
    source = Scripted((block(0, 2),), fault, fault, (block(50, 10),), None)
    with Run(source, least=10, whole_source=whole_source) as run:
        assert run.wait() == 10
        until(lambda: source.calls == ["open", "close"] * 3)


def test_a_sensor_that_is_not_there_at_first_is_opened_later(caplog: pytest.LogCaptureFixture) -> None:
    absent = PermissionError(13, "Permission denied")
    source = Scripted(absent, absent, absent, (block(0, 10),))
    with Run(source, least=9) as run:
        assert run.wait() == 9
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1 and "Permission denied; trying again every 0.01 s" in told[0].getMessage()


def test_samples_of_another_shape_are_a_failure_of_their_source_alone() -> None:
    wrong = Block(modality="acc", t_s=np.arange(3.0), values=np.zeros((3, 2), dtype=np.float32))
    source = Scripted((wrong, block(0, 2)), (block(10, 10),))
    with Run(source, least=9) as run:
        assert run.wait() == 9


def test_values_that_are_no_numbers_reach_no_window() -> None:
    bad = block(0, 10)
    bad.values[3] = np.nan
    with Run(Scripted((bad,)), least=9) as run:
        run.wait()
    assert np.isfinite(run.sensing.arrays()["acc"]).all()


def test_windows_that_are_worse_than_allowed_are_counted_by_reason_and_not_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad, clipped = block(0, 10), block(100, 10), block(200, 10)
    bad = Block(modality="acc", t_s=bad.t_s[::2], values=bad.values[::2])
    clipped.values[:, 1] = 8.0
    source = Scripted((good, bad, clipped, block(300, 10)), None)
    limits: dict[str, Any] = {"worst_gap_share": 0.4, "worst_saturated_share": 0.5, "ranges": {"acc": (-8.0, 8.0)}}
    with Run(source, whole_source=True, **limits) as run:
        assert run.wait() == 18
        assert run.sensing.passed_over == {"acc: gaps": 9, "acc: saturated": 9}
    kept = run.sensing.arrays()["acc"]
    assert np.array_equal(kept[0], good.values[:20]) and kept.max() < 8
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "windows that are not learned from: 1 so far (acc: gaps)",
        "windows that are not learned from: 1 so far (acc: saturated)",
    ]


def test_stop_ends_every_thread_and_closes_every_source() -> None:
    before = threading.active_count()
    sources = [Scripted((block(0, 5),)), Scripted(modalities=(TEMP,))]
    run = Run(*sources, modalities=(ACC, TEMP))
    with run:
        assert all(source.exhausted.wait(WAIT_S) for source in sources)
        assert threading.active_count() == before + 2
    assert threading.active_count() == before
    assert [source.calls for source in sources] == [["open", "close"]] * 2
    assert run.sensing.stop(0.0), "a second stop does no harm"


def test_stop_does_not_wait_for_the_next_attempt() -> None:
    source = Scripted(SensorError("gone"))
    with Run(source, retry_s=3600.0):
        until(lambda: source.calls == ["open", "close"])


def test_what_was_never_started_is_stopped_without_harm() -> None:
    assert Run(Scripted()).sensing.stop(0.0)


class Stuck(Scripted):
    """Its first read does not return before it is let go."""

    def __init__(self) -> None:
        super().__init__((block(0, 10),))
        self.let_go = threading.Event()

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        self.exhausted.set()
        assert self.let_go.wait(WAIT_S)
        return super().read(timeout_s)


def test_a_source_that_does_not_return_is_told() -> None:
    source = Stuck()
    run = Run(source)
    run.sensing.start()
    assert source.exhausted.wait(WAIT_S)
    assert not run.sensing.stop(0.01)
    source.let_go.set()
    assert run.sensing.stop(WAIT_S) and source.calls == ["open", "close"]


def test_nobody_reads_a_source_before_the_former_has_let_go_of_it() -> None:
    source = Stuck()
    first, second, third = Run(source), Run(source), Run(source, least=9)
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


@pytest.mark.parametrize(
    ("spec", "capacity"),
    [
        (WindowSpec(window_s=100_000.0, stride_s=1000.0), 1_000_000),
        (WindowSpec(window_s=1e-7, stride_s=1e-9), 10),
    ],
)
def test_windows_that_no_memory_holds_are_refused(spec: WindowSpec, capacity: int) -> None:
    with pytest.raises(SensorError, match=r"and this device may use .* lower windows\.capacity"):
        Sensing([], [ACC], spec, PrivateWindows(capacity=capacity, least=1), enough=lambda: None)
