"""Recordings as sources: paced by a clock that the test moves, with a gap before each segment and no labels."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.replay import MOST_ITEMS, ReplaySource
from sensors.source import Block, Gap, Item
from sensors.stream import Labels, Recording, Segment, Stream

ACC = Modality(name="acc", shape=(1,), rate_hz=10, unit="g")
MAG = Modality(name="mag", shape=(1,), rate_hz=2, unit="uT")


class Clock:
    """A clock that moves when it is waited for."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def wait(self, duration_s: float) -> None:
        assert duration_s > 0
        self.waits.append(duration_s)
        self.now_s += duration_s


def recording(*segments: Sequence[float], modalities: Sequence[Modality] = (ACC, MAG), name: str = "r") -> Recording:
    """One segment for each row of times; every modality has samples at all of them."""
    made = []
    for times in segments:
        t_s = np.array(times, dtype=np.float64)
        values = t_s[:, None].astype(np.float32)
        streams = {each.name: Stream(modality=each, t_s=t_s, values=values) for each in modalities}
        made.append(Segment(name="s", streams=streams, labels=Labels(t_s=t_s, values=np.ones(len(t_s), np.int64))))
    return Recording(name=name, segments=tuple(made), label_names={1: "secret"})


def source(played: Recording, clock: Clock, speed: float = 1.0, modalities: Sequence[str] = ("acc",)) -> ReplaySource:
    return ReplaySource(played, modalities, speed=speed, block_s=1.0, clock=clock, wait=clock.wait)


def times(items: Sequence[Item] | None) -> list[list[float] | None]:
    """Of each block its times, of a gap None."""
    assert items is not None
    return [each.t_s.tolist() if isinstance(each, Block) else None for each in items]


def test_samples_come_when_the_last_of_their_block_was_sensed() -> None:
    clock = Clock()
    replay = source(recording(np.arange(0, 3, 0.5).tolist()), clock)
    replay.open()
    seen = []
    while (items := replay.read(10)) is not None:
        seen.append((clock.now_s - 1000, times(items)))
    assert seen == [(0, [None]), (0.5, [[0, 0.5]]), (1.5, [[1, 1.5]]), (2.5, [[2, 2.5]])]


def test_a_reader_that_comes_late_gets_all_that_is_due() -> None:
    clock = Clock()
    replay = source(recording(np.arange(0, 5, 0.5).tolist()), clock)
    replay.open()
    clock.now_s += 2.6
    assert times(replay.read(0)) == [None, [0, 0.5], [1, 1.5], [2, 2.5]]
    assert replay.read(0) == ()
    assert clock.waits == []


def test_a_reader_waits_no_longer_than_it_said() -> None:
    clock = Clock()
    replay = source(recording([0, 0.9, 5]), clock)
    replay.open()
    assert times(replay.read(1)) == [None]
    assert replay.read(0.5) == ()
    assert times(replay.read(0.5)) == [[0, 0.9]]
    assert clock.waits == pytest.approx([0.5, 0.4])


@pytest.mark.parametrize(("speed", "seconds"), [(0.5, 20), (1, 10), (4, 2.5), (1e6, 1e-5), (math.inf, 0)])
def test_speed_is_how_many_times_faster_than_real_time(speed: float, seconds: float) -> None:
    clock = Clock()
    replay = source(recording(np.arange(0, 10.1, 0.5).tolist()), clock, speed)
    replay.open()
    while replay.read(1000) is not None:
        pass
    assert clock.now_s - 1000 == pytest.approx(seconds)


def test_as_fast_as_it_is_read_no_call_gives_too_much_at_once() -> None:
    clock = Clock()
    replay = source(recording(np.arange(0, 200.0).tolist()), clock, math.inf)
    replay.open()
    sizes = []
    while (items := replay.read(1)) is not None:
        sizes.append(len(items))
    assert sizes == [MOST_ITEMS] * 3 + [201 - 3 * MOST_ITEMS]
    assert clock.waits == []


def test_every_segment_starts_anew_with_a_gap() -> None:
    clock = Clock()
    replay = ReplaySource(
        [recording([0, 0.5], [0, 0.5]), recording([7, 7.5])],
        ["acc"],
        speed=math.inf,
        block_s=1.0,
        clock=clock,
        wait=clock.wait,
    )
    replay.open()
    items = replay.read(1)
    assert times(items) == [None, [0, 0.5], None, [0, 0.5], None, [7, 7.5]]
    assert items is not None and isinstance(items[0], Gap)
    assert replay.read(1) is None
    assert replay.read(1) is None


def test_time_between_segments_is_not_waited_for() -> None:
    clock = Clock()
    replay = source(recording([0, 1.5], [1e9, 1e9 + 1.5]), clock)
    replay.open()
    while replay.read(1000) is not None:
        pass
    assert clock.now_s - 1000 == 3


def test_modalities_of_different_rates_keep_the_same_time() -> None:
    [segment] = recording([0, 0.9, 1, 1.9]).segments
    mag = Stream(modality=MAG, t_s=np.array([0.5, 1.5]), values=np.zeros((2, 1), np.float32))
    both = Segment(name="s", streams={"acc": segment.streams["acc"], "mag": mag})
    clock = Clock()
    replay = source(Recording(name="r", segments=(both,), label_names={}), clock, 1.0, ("acc", "mag"))
    replay.open()
    seen = []
    while (items := replay.read(10)) is not None:
        seen.append((round(clock.now_s - 1000, 6), times(items)))
    assert seen == [(0, [None]), (0.9, [[0, 0.9], [0.5]]), (1.9, [[1, 1.9], [1.5]])]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30))
def test_a_clock_that_goes_back_does_not_stop_the_replay(stamps: list[float]) -> None:
    clock = Clock()
    replay = source(recording(stamps), clock)
    replay.open()
    played: list[float] = []
    while (items := replay.read(1000)) is not None:
        played += [each for block in times(items) if block is not None for each in block]
    assert played == stamps
    assert clock.now_s - 1000 == pytest.approx(max(stamps) - stamps[0])


def test_live_times_are_those_of_the_clock_by_which_it_is_played() -> None:
    clock = Clock()
    played = recording([5e8, 5e8 + 0.4, 5e8 + 0.9, 5e8 + 2], [3, 3.5])
    replay = ReplaySource(played, ["acc", "mag"], live=True, block_s=1.0, clock=clock, wait=clock.wait)
    for _ in range(2):
        replay.open()
        began_s = clock.now_s
        newest_s: list[float] = []
        first: dict[str, list[float]] = {"acc": [], "mag": []}
        while (items := replay.read(10)) is not None:
            for item in items:
                if isinstance(item, Block):
                    # A sensor gives a sample when it was taken, or later.
                    assert item.t_s[-1] <= clock.now_s + 1e-6
                    newest_s.append(float(item.t_s[-1]) - began_s)
                    first[item.modality] += (item.t_s - began_s).round(6).tolist()
        assert first["acc"] == first["mag"] == [0, 0.4, 0.9, 2, 2, 2.5]
        assert max(newest_s) == pytest.approx(2.5)
        clock.now_s += 7


def test_only_what_was_asked_for_is_delivered_and_no_label() -> None:
    replay = source(recording([0, 0.5]), Clock(), math.inf, ("mag",))
    assert replay.modalities == (MAG,)
    replay.open()
    items = replay.read(1)
    assert items is not None
    assert [each.modality for each in items if isinstance(each, Block)] == ["mag"]
    assert all(not hasattr(each, "labels") for each in items)
    assert all(segment.labels is None and list(segment.streams) == ["mag"] for segment in replay._segments)


def test_a_closed_replay_is_at_its_end_and_opened_again_it_begins_anew() -> None:
    clock = Clock()
    replay = source(recording([0, 0.5, 1]), clock)
    with pytest.raises(SensorError, match=r"^the replay was not opened; open a source before it is read$"):
        replay.read(1)
    replay.open()
    assert times(replay.read(1)) == [None]
    replay.close()
    replay.close()
    assert replay.read(1) is None
    clock.now_s += 50
    replay.open()
    assert times(replay.read(0)) == [None]
    assert times(replay.read(1)) == [[0, 0.5]]


@pytest.mark.parametrize("number", [0, -1, math.nan])
def test_a_replay_needs_a_speed_and_a_block_above_0(number: float) -> None:
    with pytest.raises(SensorError, match=r"^speed: expected more than 0, got .*; 1 is real time, inf as fast"):
        ReplaySource(recording([0]), ["acc"], speed=number)
    with pytest.raises(SensorError, match=r"^block_s: expected more than 0, got "):
        ReplaySource(recording([0]), ["acc"], block_s=number)


def test_a_replay_of_nothing_is_refused() -> None:
    for played, modalities in (([], ["acc"]), ([recording([0])], [])):
        with pytest.raises(SensorError, match=r"^a replay of nothing; name at least one recording and one modality$"):
            ReplaySource(played, modalities)


def test_recordings_of_different_kinds_are_not_one_source() -> None:
    faster = Modality(name="acc", shape=(1,), rate_hz=20, unit="g")
    with pytest.raises(SensorError, match=r"^b: acc is not what it is in r; replay recordings of one kind$"):
        ReplaySource([recording([0]), recording([0], modalities=[faster], name="b")], ["acc"])
    with pytest.raises(SensorError, match=r"^b: has no modality mag; it has acc: name these$"):
        ReplaySource([recording([0]), recording([0], modalities=[ACC], name="b")], ["mag"])
